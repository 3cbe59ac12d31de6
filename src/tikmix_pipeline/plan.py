"""What knows several stages at once: which round is next, and what every artifact should have been made from."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from kedro.pipeline import Pipeline

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.pipelines.cached_node import expected_records
from tikmix_pipeline.pipelines.compare.pipeline import comparison_of
from tikmix_pipeline.pipelines.influence.pipeline import gradients_of_round, influence_of_round
from tikmix_pipeline.pipelines.optimize.pipeline import decision_of_round
from tikmix_pipeline.pipelines.remix.pipeline import made_earlier, remix_of
from tikmix_pipeline.pipelines.reweight.pipeline import exports_of_round, record_of_round
from tikmix_pipeline.pipelines.sweep.pipeline import sweep_of_round, sweep_of_tables
from tikmix_pipeline.pipelines.tikmix.pipeline import loop_of, unrolled
from tikmix_pipeline.pipelines.train_chunk.pipeline import training_of_round
from tikmix_pipeline.pipelines.validate.pipeline import validation_of_round, with_measurement
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.provenance import ProvenanceRecord, artifact_status, read_record

Records = Mapping[str, ProvenanceRecord]

STAGES: Mapping[str, Callable[[Run, int], Pipeline]] = {
    "train_chunk": training_of_round,
    "influence": influence_of_round,
    "validate": with_measurement,
    "optimize": decision_of_round,
    "sweep": sweep_of_round,
    "reweight": record_of_round,
}
"""The stages that act on one round."""


def next_round(run: Run, stage: str) -> int:
    """Return the first round in which a stage is still to be done; the last one when all are done."""
    try:
        records = records_of_rounds(run)
    except TikmixError:  # a source is missing; a run that needs it says so, and others, over tables, need none
        return 0
    for number in range(run.rounds):
        outputs = {name for node in STAGES[stage](run, number).nodes if node.namespace for name in node.outputs}
        if not all(_is_done(run, name, records[name]) for name in outputs):
            return number
    return run.rounds - 1


def _is_done(run: Run, name: str, record: ProvenanceRecord) -> bool:
    # the rows that a round adds to a table of all rounds go with an artifact of the round alone
    return name.endswith("_rows") or artifact_status(run.path(name), record)[0] == "fresh"


@lru_cache(maxsize=1)
def records_of_rounds(run: Run) -> Records:
    """Return the record of every artifact of the loop, its validation and its sweep under the current parameters."""
    records = expected_records(rounds_of(run))
    if run.rounds > run.parameters.tikmix.rounds:
        # a stage beyond the loop; the loop's own records stay as they are
        records = expected_records(_with_single_stages(run, unrolled(run, run.rounds), run.rounds)) | records
    return records


def rounds_of(run: Run) -> Pipeline:
    """Return the loop, and every stage that may be run beside it."""
    return _with_single_stages(run, loop_of(run), run.parameters.tikmix.rounds)


def _with_single_stages(run: Run, loop: Pipeline, rounds: int) -> Pipeline:
    stages = [validation_of_round, influence_of_round, gradients_of_round, decision_of_round, exports_of_round]
    if run.parameters.sweep.response != "table":
        stages.append(sweep_of_round)
    # what the strategy needs of these is in the loop already
    within = {node.name for node in loop.nodes}
    beside = {node.name: node for number in range(rounds) for stage in stages for node in stage(run, number).nodes}
    return Pipeline([*loop.nodes, *(node for name, node in beside.items() if name not in within)])


def has_tables(run: Run, stages: set[str]) -> bool:
    """Tell whether a run of these stages sweeps over a user's tables."""
    return run.parameters.sweep.response == "table" and "sweep" in stages


def only_sweeps_tables(run: Run, stages: set[str]) -> bool:
    """Tell whether a run sweeps over a user's tables and does nothing else, so that it needs nothing of the loop."""
    return has_tables(run, stages) and stages == {"sweep"}


def records_of(run: Run, stages: set[str]) -> Records:
    """Return the record that every artifact of these stages should have."""
    has_rounds = "remix" not in stages and not only_sweeps_tables(run, stages)
    return {
        **(expected_records(comparison_of(run)) if "compare" in stages else {}),
        **(records_of_rounds(run) if has_rounds else {}),
        # which need nothing of the loop
        **(expected_records(sweep_of_tables(run)) if has_tables(run, stages) else {}),
        **(records_of_remix(run) if "remix" in stages else {}),
    }


def records_of_remix(run: Run) -> Records:
    """Return the record of every artifact of a `remix`; what earlier rounds have made is expected as it was written."""
    pipeline = remix_of(run)
    written = {name: read_record(run.path(name)) for name in made_earlier(pipeline)}
    # one that says nothing of what made it fits nothing
    earlier = {
        name: found.record if found is not None else ProvenanceRecord("", "", {}, {}) for name, found in written.items()
    }
    fingerprints = {name: found.fingerprint if found is not None else "" for name, found in written.items()}
    return {**earlier, **expected_records(pipeline, fingerprints)}
