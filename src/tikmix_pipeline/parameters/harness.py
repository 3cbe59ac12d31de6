"""`compare.harness`: accuracies by EleutherAI's lm-eval, beside bits per byte."""

from typing import Annotated

from pydantic import Field, PositiveInt

from tikmix_pipeline.parameters.base import UNRECORDED, Names, ParameterGroup


class HarnessParameters(ParameterGroup):
    """Which of lm-eval's tasks a checkpoint is scored on; needs the extra `[eval]`."""

    tasks: Names = Field(default_factory=list)
    """Names of tasks, groups or tags, in a list or joined by `+`; with none, lm-eval is not run.

    `tikmix` stands for the corpus's own tasks of multiple choice, `tikmix_<task>` for one of them; these need no
    network. Any other name is lm-eval's, and needs one unless it comes from `include_path`."""
    include_path: str | None = None
    """A folder with the user's own tasks (YAML), relative to the project's root; they go before lm-eval's."""
    limit: PositiveInt | None = None
    """At most this many items of each task, the first ones; `null` takes all."""
    batch_size: Annotated[PositiveInt, UNRECORDED] = 32
    """Options scored at a time."""
    document_start: bool = True
    """Begin every item with the token that begins a document, as for bits per byte. `false` is lm-eval's own way: for
    comparison with published figures of models whose tokenizer adds no such token."""

    @property
    def enabled(self) -> bool:
        """Whether anything is to be scored."""
        return bool(self.tasks)
