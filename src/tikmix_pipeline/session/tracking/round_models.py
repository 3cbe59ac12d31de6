"""The checkpoint of every round as a logged model of MLflow, so that rounds can be ranked by what they score.

The weights stay where they are: a logged model says where that is, what made it and what it scored on which dataset.
`mlflow.search_logged_models` ranks by `metrics.score/mean_of_tasks`. A checkpoint has one logged model however often
runs meet it again; they are told apart by the fingerprint of what made them.
"""

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tikmix_pipeline.run import Run
from tikmix_pipeline.session.tracking.left_runs import PLACE
from tikmix_pipeline.session.tracking.store import StoreError
from tikmix_pipeline.store.provenance import read_record

_LOG = logging.getLogger(__name__)

BEST = "best"
"""The alias of the round that a registered model is called by."""

_TYPE = "checkpoint"
_OVERWRITTEN = "overwritten"
_NOT_IN_A_NAME = str.maketrans(".", "-")  # which an experiment's name may have and a logged model's may not


@dataclass(frozen=True)
class RoundModel:
    """A round's checkpoint as the store knows it.

    Attributes:
        id: MLflow's.
        run_id: of the run that trained it, of which nothing may be known.
        location: where MLflow would keep its files.
        has: names of the metrics that it has from an earlier run.
        is_new: whether this run is the first to tell of it.
    """

    id: str
    run_id: str | None
    location: str
    has: Collection[str] = ()
    is_new: bool = True


@dataclass
class RoundModels:
    """The logged models of the rounds of a run, by round.

    Attributes:
        client: of the store.
        experiment_id: MLflow's.
        run: what is run.
        tags: what every run of the tracker is told by.
    """

    client: Any
    experiment_id: str
    run: Run
    tags: Mapping[str, str]
    by_round: dict[int, RoundModel] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    """What each round scored, lower being better."""
    _known: list[Any] | None = None
    _is_off: bool = False

    def add(self, number: int, folder: Path, runs: Collection[str]) -> None:
        """Find or make the logged model of a round's checkpoint, and link it to runs, of which the first is its own.

        A store that takes no logged models, as those of MLflow 2, is told of once; the run is tracked without them.
        """
        if self._is_off or number in self.by_round:
            return
        try:
            self.by_round[number] = model = self._found(number, folder) or self._made(number, folder, next(iter(runs)))
            self._link(model, number, runs)
        except StoreError as error:
            self._is_off = True
            _LOG.warning("The MLflow store takes no logged models (%s): checkpoints of rounds are not in it.", error)

    def lacking(self, number: int, key: str) -> str | None:
        """Return the id of a round's logged model, if there is one that lacks that metric."""
        model = self.by_round.get(number)
        return None if model is None or key in model.has else model.id

    def register(self, name: str, scored_on: str) -> str | None:
        """Register the round with the least score as a version of a model, and call the best version `best`.

        The best has the least score of all that were scored on the same. A checkpoint that is a version already stays
        that version. Without scores nothing is done.

        Args:
            name: of the registered model, which is made if need be.
            scored_on: tells what was scored.

        Returns:
            What was done, in a sentence.

        Raises:
            StoreError: the store refuses.
        """
        scored = {number: score for number, score in self.scores.items() if number in self.by_round}
        if not scored:
            return None
        number = min(scored, key=lambda one: (scored[one], one))
        score, model = scored[number], self.by_round[number]
        if not self.client.search_registered_models(f"name = '{name}'", max_results=1):
            self.client.create_registered_model(name)
        versions = list(self.client.search_model_versions(f"name = '{name}'"))
        own = next((str(one.version) for one in versions if one.source == model.location), None)
        own = own or self._new_version(name, number, scored_on)
        better = [one for one in versions if self._is_better(one, score, scored_on)]
        known = {own: score, **{str(one.version): float(one.tags["score"]) for one in better}}
        best = min(known, key=known.__getitem__)
        self.client.set_registered_model_alias(name, BEST, best)
        told = f"Registered in MLflow: round {number}, {score:.4f}, is version {own} of {name}"
        return (
            f"{told}, {name}@{BEST}." if best == own else f"{told}; {name}@{BEST} is version {best}, {known[best]:.4f}."
        )

    def _found(self, number: int, folder: Path) -> RoundModel | None:
        """Return the logged model of a checkpoint that an earlier run told of; mark those that it has overwritten."""
        found = None
        for one in self._of_experiment():
            if one.tags.get("checkpoint") != self._place(folder):
                continue
            if one.tags.get("fingerprint") == _fingerprint(folder) and found is None:
                has = {metric.key for metric in one.metrics or ()}
                found = RoundModel(one.model_id, one.source_run_id, one.artifact_location, has, is_new=False)
                if str(one.status) != "READY":  # the run was killed in between
                    self.client.finalize_logged_model(one.model_id, "READY")
            elif _OVERWRITTEN not in one.tags:
                self.client.set_logged_model_tags(one.model_id, {_OVERWRITTEN: "true"})
        return found

    def _of_experiment(self) -> list[Any]:
        """Return the logged models of this experiment in this folder, asked for once in a run."""
        if self._known is None:
            wanted = f"tags.experiment = '{self.tags['experiment']}' AND tags.{PLACE} = '{self.tags[PLACE]}'"
            page = self.client.search_logged_models([self.experiment_id], wanted)
            found = [*page]
            while page.token:
                page = self.client.search_logged_models([self.experiment_id], wanted, page_token=page.token)
                found += page
            self._known = [one for one in found if one.model_type == _TYPE]
        return self._known

    def _made(self, number: int, folder: Path, run_id: str) -> RoundModel:
        parameters = self.run.parameters
        told = {
            "round": number,
            "tokens": (number + 1) * parameters.train.tokens_per_chunk,
            **{key: self.tags[key] for key in ("model", "corpus", "strategy")},
            "seed": parameters.seed,
        }
        made = self.client.create_logged_model(
            self.experiment_id,
            name=f"{self.tags['experiment'].translate(_NOT_IN_A_NAME)}-round-{number}",
            source_run_id=run_id,
            tags={
                "experiment": self.tags["experiment"],
                PLACE: self.tags[PLACE],
                "round": str(number),
                "checkpoint": self._place(folder),
                "fingerprint": _fingerprint(folder),
                "mlflow.model.isExternal": "true",
            },
            params={key: str(value) for key, value in told.items()},
            model_type=_TYPE,
        )
        self.client.finalize_logged_model(made.model_id, "READY")
        return RoundModel(made.model_id, run_id, made.artifact_location)

    def _link(self, model: RoundModel, number: int, runs: Collection[str]) -> None:
        from mlflow.entities import LoggedModelInput, LoggedModelOutput

        for run_id in runs:
            if model.is_new:
                self.client.log_outputs(run_id, [LoggedModelOutput(model.id, step=number)])
            else:
                self.client.log_inputs(run_id, models=[LoggedModelInput(model.id)])

    def _is_better(self, version: Any, score: float, scored_on: str) -> bool:
        """Tell whether a version scores less on the same, and its checkpoint is still there."""
        tags = version.tags
        if tags.get("scored_on") != scored_on or float(tags["score"]) >= score:
            return False
        try:
            return _OVERWRITTEN not in self.client.get_logged_model(tags["model_id"]).tags
        except StoreError:  # somebody has deleted it
            return False

    def _new_version(self, name: str, number: int, scored_on: str) -> str:
        model = self.by_round[number]
        tags = {
            "experiment": self.tags["experiment"],
            "round": number,
            "score": f"{self.scores[number]:.6f}",
            "scored_on": scored_on,
            "model_id": model.id,
        }
        made = self.client.create_model_version(name, model.location, model.run_id, tags=tags, model_id=model.id)
        version = {"name": name, "version": made.version}
        self.client.set_logged_model_tags(model.id, {"mlflow.modelVersions": json.dumps([version])})
        return str(made.version)

    def _place(self, folder: Path) -> str:
        """Return where a checkpoint stands, from the project's folder."""
        return (folder.relative_to(self.run.root) if folder.is_relative_to(self.run.root) else folder).as_posix()


def _fingerprint(folder: Path) -> str:
    record = read_record(folder)
    return "" if record is None else record.fingerprint
