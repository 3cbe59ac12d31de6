"""Nothing stale is ever used: what a node reads is what the record of its artifacts holds, no less and no more.

While real runs go on, every parameter that a node looks up is noted. Then each parameter is changed in turn, and of
every node it is asked whether its record has changed: it must have where the node reads the parameter, and must not
have where it does not. And whatever makes a node of a run stale is among the parameters that the run is logged with.
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from kedro.pipeline.node import Node

from tests.pipelines.conftest import run_in
from tests.pipelines.reading import Reading, noted
from tikmix_pipeline import plan
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.presets import PRESETS
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup
from tikmix_pipeline.parameters.check import check_parameters, merged_parameters
from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.cached_node import stage_of, view_of
from tikmix_pipeline.pipelines.compare.arms import nested
from tikmix_pipeline.pipelines.optimize.pipeline import baseline_of_round
from tikmix_pipeline.pipelines.sweep.pipeline import sweep_of_tables
from tikmix_pipeline.pipelines.tikmix.pipeline import loop_of
from tikmix_pipeline.run import Run, current_run
from tikmix_pipeline.session.tracking.used_parameters import used_parameters
from tikmix_pipeline.store.provenance import flatten

NAMES_FOLDERS = {"experiment", "round", "corpus.name"}
"""Of these it is told elsewhere what they do: they name folders, and the round of a single stage."""

BY_HAND: dict[str, Any] = {
    "corpus.domains": None,  # the set of domains is that of the text, which tests/corpus is about
    "corpus.tasks": None,
    "corpus.tokenizer.path": None,
    "mlflow.system_metrics": True,
    "model.checkpoint": None,
    "train.launch": "echo {folder}",
    "train.shard": 1,
    "influence.tasks": ["quiz"],
    "influence.groups": ["linear", "embedding"],
    "optimize.bounds": {"code": {"max": 0.9}},
    "optimize.groups": {"some": {"domains": ["code", "verse"], "max": 0.99}},
    "optimize.pinned": {"verse": 0.2},
    "optimize.task_groups": {"both": ["quiz", "riddle"]},
    "optimize.task_weights": {"quiz": 2.0},
    "optimize.max_change": 0.9,
    "optimize.guardrails": {"heldout": {"tolerance": 0.7}},
    "optimize.branches": 5,
    "reweight.exports": ["levanter"],
    "reweight.paths": {"code": "data/code"},
    "reweight.batch_tokens": 256,
    "reweight.context": 64,
    "remix.current": {"code": 0.5, "prose": 0.25, "verse": 0.25},
    "remix.consumed": 1000.0,
    "remix.sizes": {"code": {"tokens": 1e9}},
    "remix.chunk_tokens": 1000,
    "remix.prediction": "prediction.json",
    "engine.address": "auto",
    "compare.harness.tasks": ["tikmix"],
    "compare.harness.include_path": "texts",
    "compare.definitions": None,
    "validate.candidates": [{"curvature": "kfac", "damping": 3.0}],
    "sweep.compared": ["ridge"],
}
"""Another value of a parameter where none follows from its type; None where it is not to be changed."""

RUNS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "loop": (
        ("tikmix",),
        {
            "corpus": {"name": "read"},
            "tikmix": {"strategy": "surrogate"},
            "sweep": {"exact": 2, "candidates": 12, "surrogate": "ridge", "compared": ["ridge"]},
            "reweight": {"exports": ["megatron"]},
        },
    ),
    "validate": (
        ("validate",),
        {
            "round": 0,
            "validate": {
                "tokens": 256,
                "replicates": 1,
                "items": 8,
                "workers": 1,
                "candidates": [{"curvature": "diagonal"}, {"curvature": "kfac"}],
            },
        },
    ),
    "lookahead": (
        ("sweep",),
        {
            "round": 0,
            "sweep": {
                "response": "lookahead",
                "design": "dirichlet",
                "candidates": 12,
                "branch_tokens": 256,
                "items": 8,
                "workers": 1,
                "surrogate": "ridge",
                "compared": ["ridge"],
            },
        },
    ),
    "response": (
        ("tikmix",),
        {
            "corpus": {"name": "read"},
            "optimize": {"method": "response", "branches": 3, "branch_tokens": 256, "branch_items": 8, "workers": 1},
            "reweight": {"exports": ["megatron"]},
        },
    ),
    "anchored": (("optimize",), {"round": 0, "optimize": {"anchor": "ngram", "fairness": "softmin"}}),
    "guarded": (
        ("tikmix",),
        {
            "corpus": {"name": "read"},
            "tikmix": {"strategy": "surrogate", "rounds": 1},
            "sweep": {"candidates": 12, "surrogate": "ridge", "compared": ["ridge"]},
            "optimize": {
                "method": "response",
                "branches": 4,
                "branch_tokens": 1536,  # long enough to tell what a gain is in nats
                "branch_items": 20,
                "workers": 1,
                "guardrails": {"each_domain": {"tolerance": 1.0, "unit": "bits_per_byte"}},
            },
            "reweight": {"exports": ["megatron"]},
        },
    ),
    "growing": (("influence",), {"round": 0, "influence": {"tokens": "auto", "max_tokens": 512}}),
    "ngram": (("optimize",), {"tikmix": {"strategy": "ngram"}}),
    "doremi": (("optimize",), {"tikmix": {"strategy": "doremi"}, "baselines": {"doremi": {"tokens": 256}}}),
    "unimax": (("optimize",), {"tikmix": {"strategy": "unimax"}}),
    "regmix": (
        ("optimize",),
        {
            "tikmix": {"strategy": "regmix"},
            "baselines": {"regmix": {"proxies": 12, "tokens": 256, "samples": 64, "top": 8, "items": 8, "workers": 1}},
        },
    ),
    "mixmin": (
        ("optimize",),
        {"tikmix": {"strategy": "mixmin"}, "baselines": {"mixmin": {"tokens": 256, "items": 8, "workers": 1}}},
    ),
    "dga": (
        ("optimize",),
        {"tikmix": {"strategy": "dga"}, "baselines": {"dga": {"tokens": 256, "items": 8, "rows": 2, "drawn_items": 4}}},
    ),
    "fastmix": (
        ("optimize",),
        {
            "tikmix": {"strategy": "fastmix"},
            "baselines": {"fastmix": {"tokens": 256, "items": 8, "rows": 2, "drawn_items": 4}},
        },
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_node_is_stale_where_a_parameter_that_it_reads_has_changed_and_nowhere_else(project: Path, name: str) -> None:
    pipelines, values = RUNS[name]
    reading = Reading()
    with noted(reading):
        run_in(project, *pipelines, **values)
    assert reading.by_node, "nothing was made, and so nothing read"
    found = list(mistakes(current_run(), reading, pipelines))
    assert not found, "\n".join(found)


def test_reading_a_parameter_behind_the_view_s_back_is_found_out(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: here a node asks the run itself for a parameter that its view lacks."""
    from tikmix_pipeline.report import effect_figures

    draw = effect_figures.measured_effects

    def reading_more(table: Any, **told: Any) -> Any:
        assert current_run().parameters.optimize.max_epochs >= 0
        return draw(table, **told)

    monkeypatch.setattr(effect_figures, "measured_effects", reading_more)
    (project / "data/08_reporting/one/round_0_influence.png").unlink()
    reading = Reading()
    with noted(reading):
        run_in(project, "influence", round=0)
    assert list(mistakes(current_run(), reading, ("influence",))) == [
        "round_0.draw_influence reads optimize.max_epochs, which is in no record of it"
    ]


def test_every_parameter_is_changed_by_the_test_above() -> None:
    """A parameter that nobody knows another value of would pass unseen."""
    corpus = {"domains": {"code": SOURCE}, "tasks": {"quiz": SOURCE}}
    parameters = check_parameters({"corpus": corpus, "sweep": {"response": "lookahead", "design": "dirichlet"}})
    unchanged = {path for path, value in leaves(parameters) if not any(True for _ in others(parameters, path, value))}
    assert unchanged <= {path for path, value in BY_HAND.items() if value is None} | TABLES


SOURCE = {"sources": [{"kind": "standard_library"}]}
TABLES = {f"sweep.table.{name}" for name in ("ratios", "metrics", "test_ratios", "test_metrics", "split")} | {
    "compare.arms",
    "compare.reference",
}
"""Parameters that have no other value by themselves."""


def mistakes(run: Run, reading: Reading, pipelines: tuple[str, ...]) -> Iterator[str]:
    """Yield what of the nodes that ran is in their records and was not read, or the other way round."""
    before = {name: flatten(view.recorded()) for name, view in reading.views.items()}
    nodes = [node for node in nodes_of(run, pipelines) if node.name in before]
    assert before.keys() == {node.name for node in nodes}
    stages = {stage_of(node) for node in nodes}
    logged = used_parameters(run, stages)
    for path, value in leaves(run.parameters):
        changed = next(others(run.parameters, path, value), None)
        if changed is None:
            continue
        after = {
            node.name: flatten(view_of(node).recorded())
            for node in nodes_of(run.with_parameters(changed), pipelines)
            if node.name in before
        }
        for name, now in after.items():
            stale = {key for key in before[name].keys() | now.keys() if before[name].get(key) != now.get(key)}
            read = reading.by_node[name]
            if stale and is_unrecorded(path):
                yield f"{name} is stale by {path}, on which no result should depend"
            elif not stale and path in read and not is_unrecorded(path) and not records(before[name], path):
                yield f"{name} reads {path}, which is in no record of it"
            elif stale and not records(logged, path):
                yield f"{name} is stale by {path}, with which the run is not logged"
            elif stale and not any(reads(read, key) for key in stale):
                yield f"{name} is stale by {path} ({', '.join(sorted(stale))}), which it does not read"


def records(record: Mapping[str, Any], path: str) -> bool:
    """Tell whether a record holds a value of this name, or values of a group of this name."""
    return any(key == path or key.startswith(f"{path}.") for key in record)


def reads(read: set[str], key: str) -> bool:
    """Tell whether a recorded value, or the group that it stands in, was read as a whole."""
    key = f"validate.{key.removeprefix('validation.')}" if key.startswith("validation.") else key
    parts = key.split(".")
    return any(".".join(parts[:end]) in read for end in range(1, len(parts) + 1)) or any(
        one.startswith(f"{key}.") for one in read
    )


def nodes_of(run: Run, pipelines: tuple[str, ...]) -> list[Node]:
    """Return the nodes of a run: of single stages those of round 0 alone, since all take long to lay out."""
    if run.parameters.sweep.response == "table":
        return sweep_of_tables(run).nodes
    if pipelines == ("tikmix",):
        return loop_of(run).nodes
    if pipelines == ("optimize",) and run.parameters.tikmix.strategy in BASELINES:
        return baseline_of_round(run, 0).nodes
    return [node for stage in pipelines for node in plan.STAGES[stage](run, 0).nodes]


def leaves(group: ParameterGroup, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of every parameter."""
    for name, field in type(group).model_fields.items():
        path, value = prefix + (field.alias or name), getattr(group, name)
        if isinstance(value, ParameterGroup):
            yield from leaves(value, f"{path}.")
        elif path not in NAMES_FOLDERS:
            yield path, value


def field_of(path: str) -> Any:
    """Return what a parameter's group says about it."""
    model: Any = RunParameters
    *groups, last = path.split(".")
    for part in groups:
        model = by_public_name(model)[part].annotation
    return by_public_name(model)[last]


def by_public_name(model: Any) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def is_unrecorded(path: str) -> bool:
    return UNRECORDED in field_of(path).metadata


def others(parameters: RunParameters, path: str, value: Any) -> Iterator[RunParameters]:
    """Yield all parameters with another valid value of one of them."""
    values = parameters.model_dump(mode="json")
    for other in candidates(path, value):
        if other == value:
            continue
        try:
            yield check_parameters(merged_parameters(values, nested({path: other})))
        except TikmixError:
            continue


def candidates(path: str, value: Any) -> Iterator[Any]:
    if path in BY_HAND:
        if BY_HAND[path] is not None:
            yield BY_HAND[path]
        return
    if path.endswith(".preset"):
        yield from PRESETS
        return
    yield from choices(field_of(path).annotation)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, 2 * value, value - 1, value // 2)
    elif isinstance(value, float):
        yield from (value / 2, value + 0.25, 2 * value)
    elif isinstance(value, str):
        yield from (f"{value}x", 2, 0.5)
    elif value is None:
        yield from (8, 0.5, "x")
    elif isinstance(value, list):
        yield from (value[:-1], [*value, len(value) + 7])


def choices(annotation: Any) -> list[Any]:
    """Return the literal values that a parameter may have."""
    arguments = get_args(annotation)
    literal = [one for one in arguments if isinstance(one, str | bool)]
    return [*literal, *itertools.chain.from_iterable(choices(one) for one in arguments if not isinstance(one, str))]
