"""`validate`: how predicted effects are held against real ones."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from tikmix_pipeline.parameters.base import UNRECORDED, ParameterGroup
from tikmix_pipeline.parameters.measurement import (
    CoverageParameters,
    Curvature,
    CurvatureParameters,
    DampingUnit,
    Group,
    Groups,
    Inverse,
    OpenParameters,
)
from tikmix_pipeline.parameters.training import StreamParameters


class Candidate(ParameterGroup):
    """One way to predict; what the parameters mean is said at `influence`, whose own values are not taken over."""

    curvature: Curvature = "kfac"
    """As `influence.curvature`."""
    inverse: Inverse = "damped"
    """As `influence.inverse`."""
    damping: PositiveFloat = 0.1
    """As `influence.damping`."""
    damping_unit: DampingUnit = "relative"
    """As `influence.damping_unit`."""
    groups: Groups | None = None
    """`null` takes those of `influence.groups`."""

    @property
    def label(self) -> str:
        """A readable name, as in `kfac horizon 1 (horizon)`: curvature, inverse, damping and its unit."""
        filtered = f" {self.inverse} {self.damping:g} ({self.damping_unit})" if self.curvature != "identity" else ""
        groups = f", {' '.join(self.groups)}" if self.groups else ""
        return f"{self.curvature}{filtered}{groups}"

    @property
    def needs_optimizer(self) -> bool:
        """Whether the curvature or its damping reads the optimiser's state."""
        return self.applied_to(OpenParameters()).needs_optimizer

    def settings(self) -> dict[str, str | float]:
        """Return what sets this candidate apart, as columns of a table."""
        return {
            "kind": self.curvature,
            "inverse": self.inverse,
            "damping": self.damping,
            "damping_unit": self.damping_unit,
            "groups": ", ".join(self.groups or []),
        }

    def applied_to(self, influence: OpenParameters) -> CurvatureParameters:
        """Return what this candidate sets, with what it leaves open."""
        return CurvatureParameters(
            curvature=self.curvature,
            fisher=influence.fisher,
            groups=self.groups or influence.groups,
            inverse=self.inverse,
            damping=self.damping,
            damping_unit=self.damping_unit,
            memory_megabytes=influence.memory_megabytes,
            device=influence.device,
        )


def _default_candidates() -> list[Candidate]:
    """Return what is worth a comparison; none costs a backward pass beyond the factors of its kind."""
    plain = [Candidate.model_validate({"curvature": name}) for name in ("identity", "adam", "diagonal")]
    return [
        *plain,
        *_filtered("kfac", damped=(0.1, 1.0, 10.0), horizon=(0.1, 0.3, 1.0, 10.0)),
        *_filtered("ekfac", damped=(0.1, 1.0), horizon=(0.3, 1.0)),
    ]


def _filtered(curvature: Curvature, *, damped: Sequence[float], horizon: Sequence[float]) -> list[Candidate]:
    """Return candidates with relative damping, and with a filter of the horizon's own unit."""
    return [
        *(Candidate(curvature=curvature, damping=damping) for damping in damped),
        *(
            Candidate(curvature=curvature, inverse="horizon", damping=damping, damping_unit="horizon")
            for damping in horizon
        ),
    ]


class MoveParameters(ParameterGroup):
    """By how much the counterfactual mixtures differ from the current one."""

    step: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """By how much a share is raised: `w' = (1 - step) w + step e_j`."""


class BranchLengthParameters(ParameterGroup):
    """How long a branch is."""

    tokens: PositiveInt = 163_840
    """Training tokens of a branch, rounded up to whole steps."""
    anneal: bool = True
    """Let the learning rate of a branch fall to zero, so that its loss is not that of a random step; otherwise it stays
    what the coming chunk has."""

    def steps(self, train: StreamParameters) -> int:
        """Return the optimiser steps of a branch."""
        return -(-self.tokens // train.tokens_per_step)


class BranchesParameters(MoveParameters, BranchLengthParameters):
    """Which branches are trained, and on how much text each is scored."""

    replicates: PositiveInt = 3
    """Times that every branch is trained, each time on other text."""
    workers: Annotated[PositiveInt | Literal["auto"], UNRECORDED] = "auto"
    """Branches trained at a time, each in one thread: `auto` is one per core on a CPU, and one on a GPU."""
    items: PositiveInt | None = 400
    """Items per task and half that a branch is scored on; `null` takes all."""


class CandidatesParameters(ParameterGroup):
    """Which predictions are compared."""

    candidates: Annotated[list[Candidate], Field(min_length=1)] = Field(default_factory=_default_candidates)
    """What is compared."""

    @field_validator("candidates")
    @classmethod
    def _require_different(cls, candidates: list[Candidate]) -> list[Candidate]:
        twice = [label for label, count in Counter(one.label for one in candidates).items() if count > 1]
        if twice:
            raise ValueError(f"the candidate '{twice[0]}' is there more than once")
        return candidates

    def groups_of(self, kind: Curvature, influence: CoverageParameters) -> list[Group]:
        """Return the groups of parameters that the candidates of one curvature take, in the order of `influence`."""
        taken = {group for one in self.candidates if one.curvature == kind for group in one.groups or influence.groups}
        order: tuple[Group, ...] = ("linear", "embedding", "head", "elementwise")
        return [group for group in order if group in taken]


class PredictionParameters(MoveParameters, CandidatesParameters):
    """What is predicted by which candidates."""


class HalfParameters(ParameterGroup):
    """Which half of the tasks is looked at."""

    half: Literal["evaluation", "query"] = "evaluation"
    """Which half of the tasks predictions are compared on; influence is measured on the query half."""


class AgreementParameters(HalfParameters, CandidatesParameters):
    """What predictions are held against."""


class ValidateParameters(BranchesParameters, PredictionParameters, AgreementParameters):
    """Branches of training from a checkpoint: one under the round's mixture, and one with more of each domain."""
