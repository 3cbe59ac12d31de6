"""What a run says while it goes on: which step it is at, and of the last decision nothing that it ends with anyway."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from tikmix_pipeline.pipelines.names import deciding_rounds
from tikmix_pipeline.pipelines.optimize.nodes import DECISIONS, SENTENCES_OF
from tikmix_pipeline.progress import at_step
from tikmix_pipeline.session.run_hooks import RunHooks
from tikmix_pipeline.session.tracking.logged import split_name


class ProgressHooks:
    """Names the step before each progress bar, and mutes what the final table says."""

    def __init__(self, run_hooks: RunHooks) -> None:
        self._run_hooks = run_hooks
        self._places: Mapping[str, int] = {}
        self._told_last: int | None = None
        self._is_remix = False

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Number the steps, those that are made already among them."""
        self._places = {node.name: place for place, node in enumerate(pipeline.nodes, start=1)}
        outputs = {split_name(name)[1] for name in pipeline.all_outputs()}
        run = self._run_hooks.run
        is_direct = run.parameters.tikmix.strategy == "direct"
        self._is_remix = is_direct and "report_content" in outputs
        self._told_last = deciding_rounds(run) if is_direct and "summary" in outputs else None
        DECISIONS.addFilter(self._is_news)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Name the step."""
        found = re.search(r"round_(\d+)", " ".join((node.name, *node.outputs)))
        step = f"step {self._places.get(node.name, 1)} of {max(1, len(self._places))}"
        at_step(f"{step}, round {found[1]}" if found else step)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Say everything again, and name no step."""
        self.close_as("FINISHED")

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Do the same."""
        self.close_as("FAILED")

    def close_as(self, status: str) -> None:
        """Do the same after an end that Kedro does not tell of."""
        del status
        at_step("")
        DECISIONS.removeFilter(self._is_news)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Tell whether the run does not end with what is about to be said of a decision."""
        number: Any = getattr(record, SENTENCES_OF, None)
        return not self._is_remix and (number is None or number != self._told_last)
