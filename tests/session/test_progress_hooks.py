"""A run says which of its steps it is at, and of its last decision nothing that it ends with anyway."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.optimize.nodes import DECISIONS, SENTENCES_OF
from tikmix_pipeline.progress import progress_bar
from tikmix_pipeline.session.progress_hooks import ProgressHooks


def same(value: Any) -> Any:
    return value


def pipeline(last: str) -> Pipeline:
    first = Node(same, "corpus", "round_1_influence", name="measure", namespace="round_1")
    return Pipeline([first, Node(same, "round_1_influence", last, name="end")])


@pytest.fixture
def hooks() -> Any:
    tikmix = SimpleNamespace(strategy="direct", deciding_rounds=3, rounds=3)
    run = SimpleNamespace(parameters=SimpleNamespace(tikmix=tikmix), rounds=3)
    found = ProgressHooks(SimpleNamespace(run=run))  # type: ignore[arg-type]
    yield found
    found.close_as("KILLED")


def bar(capsys: pytest.CaptureFixture[str]) -> str:
    progress_bar("work", 1, "thing").close()
    return capsys.readouterr().err


def test_a_bar_has_the_place_of_its_node_and_the_round(hooks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    steps = pipeline("summary")
    hooks.before_pipeline_run(steps)
    said = []
    for node in steps.nodes:
        hooks.before_node_run(node)
        said.append(bar(capsys))
    assert "step 1 of 2, round 1: work" in said[0]
    assert "step 2 of 2: work" in said[1]
    hooks.close_as("KILLED")
    assert "step" not in bar(capsys)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("summary", ["table", "round 2"]),
        ("round_2_report_content", []),
        ("round_2_decision", ["table", "round 2", "round 3"]),
    ],
)
def test_what_a_run_ends_with_is_not_said_before(
    hooks: Any, caplog: pytest.LogCaptureFixture, last: str, said: list[str]
) -> None:
    hooks.before_pipeline_run(pipeline(last))
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        DECISIONS.info("table")
        DECISIONS.info("round 2", extra={SENTENCES_OF: 2})
        DECISIONS.info("round 3", extra={SENTENCES_OF: 3})
        assert caplog.messages == said
        hooks.after_pipeline_run()
        DECISIONS.info("of another run", extra={SENTENCES_OF: 3})
    assert caplog.messages[-1] == "of another run"
