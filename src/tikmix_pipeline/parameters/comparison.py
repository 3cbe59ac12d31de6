"""`compare`: which arms, over which seeds, and what judges them."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tikmix_pipeline.parameters.base import UNRECORDED, Names, ParameterGroup

ArmName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]
"""A part of the name of an experiment."""

START = "start"
"""The name of the run that trains the first round of every arm."""


class PointParameters(ParameterGroup):
    """Which arms there are."""

    arms: list[ArmName] | None = None
    """Which of `definitions` to run; on the command line `direct+uniform`. null: all."""
    definitions: Annotated[dict[ArmName, dict[str, Any]], Field(min_length=1)] = Field(
        default_factory=lambda: {"proportional": {"tikmix.strategy": "proportional"}, "direct": {}}
    )
    """What each arm sets differently from the run: dotted names of parameters and their values."""

    @property
    def chosen(self) -> list[str]:
        """Return the arms to run, in the order of their definitions."""
        return [name for name in self.definitions if self.arms is None or name in self.arms]


class ReferenceParameters(PointParameters):
    """Which arms and seeds are expected, and what the arms are set against."""

    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = Field(default_factory=lambda: [0, 1, 2])
    """Seeds of initial weights and data order; a number n stands for 0 to n - 1."""
    reference: ArmName = "proportional"
    """The arm that all others are compared with, seed by seed."""


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


class CompareParameters(ReferenceParameters):
    """Several ways of mixing, trained on the same budget from the same start."""

    out_of_domain: list[str] | Literal["auto"] = "auto"
    """Tasks that judge and never decide; on the command line `piqa+siqa`. `auto`: the last two fifths of
    `corpus.tasks`."""
    workers: Annotated[PositiveInt | Literal["auto"], UNRECORDED] = "auto"
    """Arms at a time; `auto`: one per core on a CPU, one on a GPU."""
    harness: HarnessParameters = HarnessParameters()

    @field_validator("arms", "out_of_domain", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return value.split("+") if isinstance(value, str) and value != "auto" else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_seeds(cls, value: Any) -> Any:
        return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check_names(self) -> "CompareParameters":
        if START in self.definitions:
            raise ValueError(f"definitions: '{START}' is the name of the round that all arms share; rename that arm")
        unknown = [name for name in self.arms or () if name not in self.definitions]
        if unknown:
            known = ", ".join(self.definitions)
            raise ValueError(f"arms: {', '.join(unknown)} has no definition; there are {known}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is given twice")
        return self

    def judging_only(self, tasks: list[str]) -> list[str]:
        """Return those of the corpus's tasks that never decide."""
        return tasks[len(tasks) - 2 * len(tasks) // 5 :] if self.out_of_domain == "auto" else list(self.out_of_domain)
