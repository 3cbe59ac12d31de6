"""A facet holds what one piece of code reads, and records what its result may depend on."""

from types import SimpleNamespace
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters, ValidateParameters
from tikmix_pipeline.parameters.base import UNRECORDED, OnDisk, ParameterGroup, View, only_if, plain, unrecorded
from tikmix_pipeline.parameters.measurement import CurvatureParameters, GradientParameters, ScoringParameters
from tikmix_pipeline.parameters.training import ScheduleParameters, StepParameters


class Small(ParameterGroup):
    """Two values and how they are worked on."""

    kind: str = "a"
    size: Annotated[int, only_if("kind", "a", "b")] = 1
    workers: Annotated[int, UNRECORDED] = 2


class Large(Small):
    """More of them."""

    other: int = 3


def test_facet_lacks_what_the_group_has_besides() -> None:
    with pytest.raises(AttributeError, match="other"):
        _ = Large().narrowed(Small).other  # type: ignore[attr-defined]


def test_value_that_does_not_count_cannot_be_read_and_is_in_no_record() -> None:
    narrow = Large(kind="c", size=7).narrowed(Small)
    assert narrow.recorded() == {"kind": "c"}
    with pytest.raises(AttributeError, match="size"):
        _ = narrow.size
    assert Large(kind="b", size=7).narrowed(Small).recorded() == {"kind": "b", "size": 7}


def test_what_no_result_depends_on_is_handed_over_and_not_recorded() -> None:
    narrow = Large(workers=9).narrowed(Small)
    assert narrow.workers == 9
    assert "workers" not in narrow.recorded()


def test_records_hold_public_names_and_plain_values() -> None:
    assert plain({"a": (1, 2), "b": Small(kind="c")}) == {"a": [1, 2], "b": {"kind": "c", "size": 1}}


@given(st.sampled_from(["adamw", "muon"]), st.floats(1e-4, 1.0))
def test_rate_of_muon_counts_for_muon_alone(optimizer: str, rate: float) -> None:
    train = TrainParameters.model_validate({"optimizer": optimizer, "muon_learning_rate": rate})
    recorded = train.narrowed(StepParameters).recorded()
    assert recorded.get("muon_learning_rate") == (rate if optimizer == "muon" else None)


def test_parameters_of_one_step_leave_the_schedule_out() -> None:
    step, schedule = (TrainParameters().narrowed(facet).recorded() for facet in (StepParameters, ScheduleParameters))
    assert not {"chunk_tokens", "warmup_tokens", "evaluation_items", "device", "world_size"} & step.keys()
    assert schedule.keys() - step.keys() == {
        *("chunk_tokens", "warmup_tokens", "decay_tokens", "final_learning_rate_fraction"),
    }


def test_identity_ignores_its_damping() -> None:
    influence = InfluenceParameters(curvature="identity", damping=3.0)
    assert influence.narrowed(CurvatureParameters).recorded().keys() == {"curvature", "groups"}


def test_amount_of_measured_text_counts_for_scores_only_where_it_is_shared_with_them() -> None:
    """Held-out slices are dealt between measuring and judging; tasks have halves of their own."""
    for targets, counts in (("tasks", False), ("heldout", True), ("all", True)):
        scored = InfluenceParameters.model_validate({"targets": targets}).narrowed(ScoringParameters).recorded()
        assert ({"tokens", "items_per_task", "micro_batches"} <= scored.keys()) is counts


def test_most_tokens_are_those_that_are_asked_for_or_those_that_growing_may_reach() -> None:
    assert InfluenceParameters(tokens=64).narrowed(GradientParameters).most_tokens == 64
    assert InfluenceParameters(tokens="auto", max_tokens=512).narrowed(GradientParameters).most_tokens == 512


def test_groups_of_parameters_are_named_on_the_command_line_with_a_plus() -> None:
    listed = InfluenceParameters.model_validate({"groups": ["linear", "elementwise"]})
    assert InfluenceParameters.model_validate({"groups": "linear+elementwise"}) == listed
    for wrong in ("", "linear+", "linear,head", []):
        with pytest.raises(ValidationError, match="groups"):
            InfluenceParameters.model_validate({"groups": wrong})


def test_view_records_its_facets_derived_values_and_files_and_nothing_else() -> None:
    class Seen(View):
        seed: int
        files: OnDisk
        cores: int = unrecorded()

    asked = []
    files = OnDisk(lambda: asked.append(1) or ["digest"])
    view = Seen.of(SimpleNamespace(seed=3), files=files, cores=8)
    assert not asked, "files are looked up when a record is made"
    assert [view.recorded(), view.recorded()] == [{"seed": 3, "files": ["digest"]}] * 2
    assert asked == [1]
    assert view.cores == 8


def test_steps_of_a_branch_are_whole() -> None:
    assert ValidateParameters(tokens=163_841).steps(TrainParameters()) == 41
