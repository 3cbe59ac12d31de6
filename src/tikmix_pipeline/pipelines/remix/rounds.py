"""Which round a checkpoint ends, and which of the rounds before it a decision may rest on.

A team brings one checkpoint after the other under one experiment name. Each is a round; one that was seen before is its
old round again.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, sampled_signature
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.provenance import ProvenanceRecord, artifact_status, read_record

_ADOPTED = "adopt_checkpoint"


def checkpoint_files(run: Run) -> list[list[str | int]]:
    """Return what tells one checkpoint from another: its weights, wherever they lie and whatever lies beside them."""
    checkpoint = run.parameters.model.checkpoint
    if checkpoint is None:
        return []
    folder = run.root / checkpoint
    weights = sorted(folder.glob("*.safetensors"))
    return sampled_signature([*folder.glob("config.json"), *weights] if weights else [])


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
    earlier = read_json(before)["consumed"] if before.is_file() else {}
    return list(dict.fromkeys([*run.parameters.corpus.domains, *earlier]))


def earlier_rounds(run: Run, number: int) -> tuple[int, ...]:
    """Return the earlier rounds that measured at least the tasks and domains of this one."""
    return tuple(
        earlier for earlier in range(number) if _covers(run.path(of_round(earlier, "measurement")), run.parameters)
    )


def _covers(measurement: Path, parameters: RunParameters) -> bool:
    if not measurement.is_file():
        return False
    measured = read_json(measurement)
    domains, influence = list(parameters.corpus.domains), parameters.influence
    targets = influence.deciding(list(parameters.corpus.tasks)) if influence.targets != "heldout" else []
    if influence.targets != "tasks":
        targets += [f"heldout-{domain}" for domain in domains]
    return set(domains) <= set(measured["domain_loss"]) and set(targets) <= set(measured["task_loss"])
