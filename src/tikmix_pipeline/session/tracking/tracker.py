"""One MLflow run, the child runs of its rounds, and what is logged to them.

What a store raises depends on where it stands: MLflow's own error, what HTTP clients raise, and for artifacts whatever
the client library of that place raises, which derives from nothing in common. Here all of it becomes a `StoreError`, so
that a run can go on without its store, while a mistake in what is logged still shows.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.laid_out import LaidOut, shortened
from tikmix_pipeline.run import Run
from tikmix_pipeline.session.tracking.inputs import dataset_inputs, task_digests
from tikmix_pipeline.session.tracking.left_runs import PLACE, close_left_runs, place_of
from tikmix_pipeline.session.tracking.logged import (
    AT_ROOT,
    CHECKPOINT,
    COMPARISONS,
    DOCUMENT_NAMES,
    DOCUMENTS,
    FILES,
    HEADLINE,
    METRICS,
    OF_A_CHECKPOINT,
    SCORES,
    SWEEP_PARTS,
    TABLES,
    Metrics,
    run_name,
    run_tags,
    split_name,
)
from tikmix_pipeline.session.tracking.round_models import RoundModels
from tikmix_pipeline.session.tracking.store import PARENT_RUN, StoreError, open_store
from tikmix_pipeline.session.tracking.sweep import best_candidates, candidates_table, write_model
from tikmix_pipeline.session.tracking.system_metrics import MachineWatch
from tikmix_pipeline.session.tracking.used_parameters import used_parameters
from tikmix_pipeline.store.keyed import key_of

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_PARAMETER_LENGTH = 6000
_TAG_LENGTH = 500  # what the strictest stores take
_DESCRIPTION_LENGTH = 5000
_METRICS_PER_BATCH = 1000
_SHOWN_ROWS = 2000
_SHORT_KEY = 16


class Tracker:
    """One MLflow run and the child runs of its rounds."""

    def __init__(self, run: Run, run_params: Mapping[str, Any]) -> None:
        self._name = run.parameters.experiment
        self._held: Metrics | None = None
        self._inputs: list[Any] = []
        self._digests: dict[str, str] = {}
        self._items = run.parameters.train.evaluation_items
        self._tags = {**run_tags(run, run_params), PLACE: place_of(run.root)}
        self._rounds: dict[int, str] = {}
        self._decided: dict[int, Metrics] = {}
        self._trained: dict[int, Metrics] = {}
        self._sweeps: dict[int, dict[str, Any]] = {}
        store = open_store(run.root)
        self._client, self._experiment_id = store.client, store.experiment_id
        self._models = RoundModels(self._client, self._experiment_id, run, self._tags)
        self._close_left_runs()
        tags = {"mlflow.parentRunId": store.parent_id} if store.parent_id else {}
        self._is_arm = PARENT_RUN in os.environ
        self._watch: MachineWatch | None = None
        try:
            self._run_id = self._create_run(self._name if self._is_arm else run_name(run, run_params), tags)
            self._require_artifacts()
            # arms share a machine, which the run that they are part of watches
            wanted = False if self._is_arm else run.parameters.mlflow.system_metrics
            self._watch = MachineWatch(self._run_id, store.uri, wanted)
        except StoreError as error:
            raise TikmixError(f"The MLflow store takes no run ({error}). tracking=optional goes on without.") from error
        except BaseException:
            self._close_left_runs()  # a run that is there, and that nobody else knows of yet
            raise

    def _require_artifacts(self) -> None:
        """Ask the artifact store for something: where it cannot be reached, better now than after the first chunk."""
        try:
            self._client.list_artifacts(self._run_id)
        except StoreError as error:
            with contextlib.suppress(StoreError):
                self.close("FAILED")
            raise TikmixError(
                f"The MLflow store keeps its artifacts where they cannot be reached ({error}). See that bucket, "
                "credentials (AWS_ACCESS_KEY_ID, ...) and endpoint (MLFLOW_S3_ENDPOINT_URL) are right and the client "
                "is installed (boto3 for s3://), or start the server with --artifacts-destination, so that it passes "
                "artifacts on itself. tracking=optional goes on without."
            ) from error

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        cut = {key: value[:_TAG_LENGTH] for key, value in {**self._tags, **tags}.items()}
        created = self._client.create_run(self._experiment_id, run_name=name, tags=cut)
        return str(created.info.run_id)

    def log_parameters(self, run: Run, stages: Collection[str]) -> None:
        """Log the parameters of these stages under dotted names."""
        from mlflow.entities import Param

        values = used_parameters(run, stages)
        entries = [Param(key, str(value)[:_PARAMETER_LENGTH]) for key, value in values.items()]
        for start in range(0, len(entries), 100):
            self._client.log_batch(self._run_id, params=entries[start : start + 100])

    def hold_for_headline(self) -> None:
        """Log no metric of the run before its headline, since comparisons open with the one that was logged first."""
        self._held = []

    def log_metrics(self, metrics: Metrics, run_id: str | None = None) -> None:
        """Log many metrics in few transactions."""
        if run_id is None and self._held is not None:
            if not metrics or metrics[0][0] != HEADLINE:
                self._held += metrics
                return
            metrics, self._held = [*metrics, *self._held], None
        self._log_now(metrics, run_id)

    def _log_now(self, metrics: Metrics, run_id: str | None, of_round: int | None = None) -> None:
        """Log metrics to a run, and to the logged model of a round, each with the dataset that it is about."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, value, now, step, **self._about(key, of_round)) for key, value, step in metrics]
        for start in range(0, len(entries), _METRICS_PER_BATCH):
            self._client.log_batch(run_id or self._run_id, metrics=entries[start : start + _METRICS_PER_BATCH])

    def _about(self, key: str, of_round: int | None) -> dict[str, str]:
        """Return the logged model that a metric is of, and the dataset that was scored."""
        kind, _, name = key.partition("/")
        model = self._models.lacking(of_round, key) if of_round is not None and kind in OF_A_CHECKPOINT else None
        if model is None:
            return {}
        digest = self._digests.get(name) if kind in SCORES else None
        return {"model_id": model} | ({"dataset_name": name, "dataset_digest": digest} if digest else {})

    @property
    def _scored_on(self) -> str:
        """What tells the tasks that rounds are scored on, and how many items of each."""
        return key_of({"tasks": task_digests(self._inputs), "items": self._items})[:_SHORT_KEY]

    def log(self, name: str, value: Any) -> None:
        """Log a dataset's content to the run, and to the child run of its round."""
        of_round, kind = split_name(name)
        number = of_round or 0
        place = "" if of_round is None else f"/round_{number}"
        if kind == CHECKPOINT:
            self._log_checkpoint(value, number)
        elif isinstance(value, Path):
            log = self._client.log_artifacts if value.is_dir() else self._client.log_artifact
            log(self._run_id, str(value), FILES.get(kind, "figures"))
            if kind in AT_ROOT:
                self._client.log_artifact(self._run_id, str(value))
        elif kind == "corpus":
            self._log_corpus(value)
        elif kind in DOCUMENTS:
            self._client.log_dict(self._run_id, value.to_json(), f"{DOCUMENT_NAMES.get(kind, kind)}{place}.json")
        elif kind in SWEEP_PARTS:
            self._log_sweep(kind, value, number)
        if kind in TABLES | COMPARISONS:
            self._log_table(kind, value, f"tables{place}")
        if kind in METRICS:
            metrics = METRICS[kind](value, number)
            if kind == "mixture" and number not in self._rounds:
                self._decided[number] = metrics  # until its round is trained, which that of the last one never is
                return
            self.log_metrics(metrics)
            if kind == "evaluation":
                self._models.scores[number] = metrics[0][1]
            if of_round is not None:
                self._log_now(metrics, self._run_of_round(number), number)
            elif kind == "final_evaluation" and self._rounds:  # of the last round's checkpoint
                last = max(self._rounds)
                self._log_now(METRICS[kind](value, last), self._rounds[last], last)

    def _log_checkpoint(self, folder: Path, number: int) -> None:
        self._models.add(number, folder, (self._run_of_round(number), self._run_id))
        self._log_mixture_of_round(number)

    def _run_of_round(self, number: int) -> str:
        """Return the child run of a round; the first who asks makes it."""
        if number not in self._rounds:
            tags = {"mlflow.parentRunId": self._run_id, "round": str(number)}
            self._rounds[number] = self._create_run(f"{self._name} round {number}", tags)
            if self._inputs:
                self._client.log_inputs(self._rounds[number], datasets=self._inputs)
            self._trained[number] = self._decided.pop(number, [])
            self.log_metrics(self._trained[number])
        return self._rounds[number]

    def _log_mixture_of_round(self, number: int) -> None:
        """Log to a round's own run what it was trained on: once its checkpoint is known, whose metric that is too."""
        self._log_now(self._trained.pop(number, []), self._rounds[number], number)

    def _log_sweep(self, kind: str, value: Any, number: int) -> None:
        """Log the candidates once mixtures and responses are both there, the surrogate once it can be described."""
        parts = self._sweeps.setdefault(number, {})
        parts[kind] = value
        if not {"sweep_ratios", "sweep_metrics"} <= parts.keys():
            return
        ratios, metrics = parts["sweep_ratios"], parts["sweep_metrics"]
        if kind != "surrogate":
            self._log_candidates(candidates_table(ratios, metrics), number)
        if "surrogate" in parts:
            self._log_model(parts["surrogate"], ratios, metrics, number)

    def _log_candidates(self, candidates: Any, number: int) -> None:
        self._log_table("sweep", candidates, f"tables/round_{number}")
        round_run = self._run_of_round(number)
        for candidate, metrics in best_candidates(candidates).items():
            tags = {"mlflow.parentRunId": round_run, "round": str(number), "candidate": candidate}
            run_id = self._create_run(f"{self._name} round {number} candidate {candidate}", tags)
            self.log_metrics(metrics, run_id)
            self._client.set_terminated(run_id, "FINISHED")

    def _log_model(self, estimator: Any, ratios: Any, metrics: Any, number: int) -> None:
        from mlflow.entities import LoggedModelOutput

        run_id = self._run_of_round(number)
        tags = {"experiment": self._name, "round": str(number)}
        entry = self._client.create_logged_model(
            self._experiment_id, name=f"round_{number}_surrogate", source_run_id=run_id, tags=tags
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            write_model(estimator, ratios, metrics, entry, folder)
            self._client.log_model_artifacts(entry.model_id, str(folder))
        self._client.finalize_logged_model(entry.model_id, "READY")
        for one in (run_id, self._run_id):
            self._client.log_outputs(one, [LoggedModelOutput(entry.model_id, step=number)])

    def _log_table(self, kind: str, table: Any, folder: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / f"{kind}.parquet"
            table.to_parquet(file, index=False)
            self._client.log_artifact(self._run_id, str(file), folder)
            if len(table) <= _SHOWN_ROWS:  # MLflow's pages show CSV, and no Parquet
                table.to_csv(file.with_suffix(".csv"), index=False)
                self._client.log_artifact(self._run_id, str(file.with_suffix(".csv")), folder)

    def _log_corpus(self, corpus: Any) -> None:
        self._inputs = dataset_inputs(corpus)
        self._digests = {one.dataset.name: one.dataset.digest for one in self._inputs}
        self._client.log_inputs(self._run_id, datasets=self._inputs)
        self._client.log_dict(self._run_id, corpus.overlap_report(), "corpus/overlap.json")

    def register(self, name: str) -> str | None:
        """Register the best round under a name; return what was done, or why it was not, in a sentence."""
        if self._is_arm:
            return None
        try:
            return self._models.register(name, self._scored_on)
        except StoreError as error:
            return f"Nothing was registered as {name} (mlflow.registered_model): {error}"

    def describe(self, ending: LaidOut) -> None:
        """Show what the run ended with on its page, and keep it as it was on the terminal."""
        shown = shortened(ending.markdown, _DESCRIPTION_LENGTH, "The rest is in summary.txt.")
        self._client.set_tag(self._run_id, "mlflow.note.content", shown)
        self._client.log_text(self._run_id, ending.text.strip() + "\n", "summary.txt")

    def adopt(self) -> None:
        """Make the runs of processes that are started from here on children of this one."""
        os.environ[PARENT_RUN] = self._run_id

    def log_last(self, seconds: Sequence[tuple[str, float]]) -> None:
        """Log what was held back, the mixture that is decided and not yet trained on, and how long every node took."""
        for number in [*self._trained]:
            self._log_mixture_of_round(number)
        held, self._held = self._held or [], None
        coming = self._decided.get(max(self._decided, default=-1), [])
        self.log_metrics([*held, *((f"next_{key}", value, step) for key, value, step in coming)])
        if seconds:
            lines = ["step,seconds", *(f"{node},{took:.3f}" for node, took in seconds)]
            self._client.log_text(self._run_id, "\n".join(lines) + "\n", "seconds.csv")

    def stop_watching(self) -> None:
        """Measure nothing of the machine from here on."""
        if self._watch is not None:
            self._watch.finish()

    def close(self, status: str) -> None:
        """End the run and its rounds."""
        self.stop_watching()
        if os.environ.get(PARENT_RUN) == self._run_id:
            del os.environ[PARENT_RUN]
        for run_id in [*self._rounds.values(), self._run_id]:
            self._client.set_terminated(run_id, status)
        if status != "FINISHED":
            self._close_left_runs()  # a signal may have come between the creation of a run and its name here

    def _close_left_runs(self) -> None:
        close_left_runs(self._client, self._experiment_id, self._name, self._tags[PLACE])
