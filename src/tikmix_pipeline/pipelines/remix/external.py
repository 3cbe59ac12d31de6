"""A run that is trained elsewhere: what a team gives of it besides parameters, and which rounds it has.

A team brings one checkpoint after the other under one experiment name. Each is a round; one that was seen before is its
old round again. With them come samples of its domains, a tokenizer, and the current mixture as a file.
"""

import contextlib
import itertools
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json_object, sampled_signature
from tikmix_pipeline.lm.weights import weight_files
from tikmix_pipeline.parameters import CorpusParameters, InfluenceParameters, RunParameters
from tikmix_pipeline.parameters.measurement import heldout_target
from tikmix_pipeline.parameters.remix import ExternalParameters
from tikmix_pipeline.pipelines.names import domain_products, of_round
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.keyed import read_content
from tikmix_pipeline.store.provenance import ProvenanceRecord, artifact_status, read_record

if TYPE_CHECKING:
    from tikmix_pipeline.report.whatif_records import Prediction

_ADOPTED = "adopt_checkpoint"
_A_MIXTURE = 'Give a JSON object of domains and their shares, such as {"web": 0.7, "code": 0.3}, or a mixture.json.'
_A_PREDICTION = "Give the file that whatif.html has recorded, or null."
_BYTES_PER_TOKEN = 8
"""More than any tokenizer's mean on text that it was made for."""
_LEAST_MEGABYTES = 1.0
"""Enough documents to tell held-out ones from, however little is measured."""


def narrowed_corpus(parameters: RunParameters) -> CorpusParameters:
    """Return the corpus with as much text of every domain as is measured, and no more."""
    corpus = parameters.corpus
    needed = needed_megabytes(parameters.influence, parameters.train.context) / (1 - corpus.heldout_fraction)
    domains = {
        name: domain.model_copy(update={"max_megabytes": min(domain.max_megabytes, needed)})
        if domain.max_megabytes
        else domain
        for name, domain in corpus.domains.items()
    }
    return corpus.model_copy(update={"max_megabytes": needed, "domains": domains})


def needed_megabytes(influence: InfluenceParameters, context: int) -> float:
    """Return how much text of a domain is enough for its measurement, in MB of UTF-8.

    Windows of `context` tokens are read by their beginnings, so most of it is passed over.
    """
    windows = ceil(max(influence.most_tokens, influence.factor_tokens) / influence.domain_context(context))
    return max(_LEAST_MEGABYTES, windows * context * _BYTES_PER_TOKEN / 1e6)


def tokenizer_folder(parameters: RunParameters) -> str:
    """Return the folder of the tokenizer: the checkpoint's, unless the user names another."""
    return parameters.corpus.tokenizer.path or parameters.model.checkpoint or ""


def given_mixture(remix: ExternalParameters, root: Path, experiment: str) -> Mapping[str, float] | None:
    """Return the current mixture as the user gives it, as weights or as a file; None where it is not given.

    Raises:
        TikmixError: the file is missing, holds no weights or is of another experiment.
    """
    if not isinstance(remix.current, str):
        return remix.current
    path = root / remix.current
    if not path.is_file():
        raise TikmixError(f"remix.current: there is no file {path}. Give weights by domain, or a mixture.json.")
    content = read_json_object(path, _A_MIXTURE, source="remix.current: ")
    weights = content.get("weights", content)
    if not isinstance(weights, Mapping) or not all(isinstance(weight, int | float) for weight in weights.values()):
        raise TikmixError(f"remix.current: {path} holds no shares of domains. {_A_MIXTURE}")
    experiments, path_on_disk = (root / "data" / "07_model_output").resolve(), path.resolve()
    is_within = path_on_disk.is_relative_to(experiments)
    owner = path_on_disk.relative_to(experiments).parts[0] if is_within else experiment
    if owner != experiment:
        raise TikmixError(
            f"remix.current: {path} is a mixture of the experiment '{owner}', and this one is '{experiment}'. If the "
            "run was trained under it all the same, give its weights themselves; otherwise set experiment."
        )
    return weights


def given_prediction(path: Path) -> "Prediction":
    """Return the prediction that a file holds.

    Raises:
        TikmixError: the file is missing, or is none that the what-if page recorded.
    """
    from tikmix_pipeline.report.whatif_records import Prediction

    if not path.is_file():
        raise TikmixError(f"remix.prediction: there is no file {path}. {_A_PREDICTION}")
    content = read_json_object(path, _A_PREDICTION, source="remix.prediction: ")
    try:
        return Prediction.model_validate(content, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors()[0]
        raise TikmixError(
            f"remix.prediction: {path} is no prediction that whatif.html has recorded: "
            f"'{'.'.join(map(str, first['loc']))}': {first['msg']}. {_A_PREDICTION}"
        ) from error


def require_prediction(run: Run, number: int) -> None:
    """Refuse a prediction that is not for the chunk before round `number` of this experiment.

    Raises:
        TikmixError: as `given_prediction`, or saying which round it is for.
    """
    path = run.root / str(run.parameters.remix.prediction)
    predicted, experiment = given_prediction(path), run.parameters.experiment
    if (predicted.experiment, predicted.round) != (experiment, number - 1):
        raise TikmixError(
            f"remix.prediction: {path} was recorded after round {predicted.round} of '{predicted.experiment}', and "
            f"this checkpoint is that of round {number} of '{experiment}'. A prediction is scored at the next "
            "checkpoint: give that, or leave remix.prediction out."
        )


def checkpoint_files(run: Run) -> list[list[str | int]]:
    """Return what tells one checkpoint from another: its weights, wherever they lie and whatever lies beside them."""
    checkpoint = run.parameters.model.checkpoint
    if checkpoint is None:
        return []
    folder = run.root / checkpoint
    with contextlib.suppress(TikmixError):  # what is wrong with it, the checks of a run tell
        return sampled_signature([*folder.glob("config.json"), *weight_files(folder)])
    return []


def remix_round(run: Run) -> int:
    """Return the round whose end the checkpoint is: its own if it was seen before, else the first not yet decided."""
    if run.parameters.round is not None:
        return run.parameters.round
    files = checkpoint_files(run)
    for number in itertools.count():
        adopted = read_record(run.path(of_round(number, "checkpoint")))
        is_decided = run.path(of_round(number + 1, "mixture")).exists()
        if adopted is None or not is_decided or adopted.record.parameters.get("files") == files:
            return number
    raise AssertionError


def require_earlier_rounds(run: Run, number: int) -> None:
    """Refuse a round whose predecessor is missing or was trained here.

    Raises:
        TikmixError: saying what to set instead.
    """
    parameters = run.parameters
    for earlier in range(number + 1):
        adopted = read_record(run.path(of_round(earlier, "checkpoint")))
        if adopted is not None and not adopted.record.node.endswith(_ADOPTED):
            raise TikmixError(
                f"The experiment '{parameters.experiment}' was trained here, by `tikmix` or `train_chunk`. Give "
                "`remix` an experiment of its own: --params experiment=<name>."
            )
        if earlier < number and not run.path(of_round(earlier + 1, "mixture")).exists():
            raise TikmixError(
                f"round is {number}, but this experiment has decided nothing for round {earlier + 1} yet. Leave "
                "`round` out: the checkpoint's round is found by itself."
            )


def require_no_remix(run: Run) -> None:
    """Refuse to train in an experiment that `remix` keeps the rounds of an external run in.

    Raises:
        TikmixError: saying what to set instead.
    """
    first = read_record(run.path(of_round(0, "checkpoint")))
    if first is not None and first.record.node.endswith(_ADOPTED):
        raise TikmixError(
            f"The experiment '{run.parameters.experiment}' holds the rounds of `remix`. Give this run another: "
            "--params experiment=<name>."
        )


def require_undecided(run: Run, records: Mapping[str, ProvenanceRecord]) -> None:
    """Refuse to change what a round decided once the next checkpoint, trained under it, was brought.

    Raises:
        TikmixError: saying how to try something out instead.
    """
    number = remix_round(run)
    decided = of_round(number + 1, "mixture")
    if read_record(run.path(of_round(number + 1, "checkpoint"))) is None:
        return
    if artifact_status(run.path(decided), records[decided])[0] != "fresh":
        raise TikmixError(
            f"The checkpoint is that of round {number}, and round {number + 1} was trained under what it decided: "
            "other parameters would rewrite that. To try something out, set another `experiment`; for the next "
            "mixture, give the latest checkpoint."
        )


def domains_ever(run: Run) -> list[str]:
    """Return the domains of this run and of the rounds before, whose paths trainers' files of all stages need."""
    before = run.path(of_round(remix_round(run) - 1, "token_budget"))
    earlier = read_content(before).get("consumed", {}) if before.is_file() else {}
    return list(dict.fromkeys([*run.parameters.corpus.domains, *earlier]))


def earlier_rounds(run: Run, number: int) -> tuple[int, ...]:
    """Return the earlier rounds that measured at least the tasks and domains of this one, and what it decides on."""
    return tuple(
        earlier
        for earlier in range(number)
        if _covers(run.path(of_round(earlier, "measurement")), run.parameters)
        and all(run.path(name).is_file() for name in domain_products(run, earlier)[-1:])
    )


def _covers(measurement: Path, parameters: RunParameters) -> bool:
    if not measurement.is_file():
        return False
    measured = read_content(measurement)
    if not measured:
        return True
    domains, influence = list(parameters.corpus.domains), parameters.influence
    targets = influence.deciding(list(parameters.corpus.tasks)) if influence.targets != "heldout" else []
    if influence.targets != "tasks":
        targets += [heldout_target(domain) for domain in domains]
    return set(domains) <= set(measured.get("domain_loss", {})) and set(targets) <= set(measured.get("task_loss", {}))
