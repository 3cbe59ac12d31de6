"""What surrogates are fitted on: the measured responses, one target each, or the objective that they make together.

Axes: N candidates, K domains, T responses, U targets of the objective.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.fairness import softmin
from tikmix_pipeline.mixture.influence_matrix import averaged_influence, normaliser
from tikmix_pipeline.mixture.objective import Targets, check_tasks, spread, total
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses, Scale, responses_of, varies
from tikmix_pipeline.parameters.decision import AveragingParameters, ObjectiveParameters
from tikmix_pipeline.parameters.sweep import SurrogateParameters

if TYPE_CHECKING:
    import pandas as pd

AGGREGATE = "aggregate"
"""The one target of `sweep.target: aggregate`."""

REFERENCE = "reference"
"""The run of the mixture that no target may do worse than; measured beside the candidates, it is none of them. Only a
sweep around D has one: a user's table may name a run as it likes."""

_FEWEST = 8
"""Fewer runs than `sweep.candidates` may be are too few to fit and to judge."""


@dataclass(frozen=True, eq=False)
class SweepObjective:
    """F as a function of predicted gains: D's objective, or their sum."""

    kind: Literal["direct", "sum"]
    parameters: ObjectiveParameters
    counts_T: npt.NDArray[np.bool_]
    """The responses that take part; others do not vary, or nothing tells them apart."""
    targets: Targets
    """What the objective makes of them: each by itself, or groups, with their weights."""
    anchor_K: FloatArray | None = None
    """The mixture that the entropy is relative to; None for the uniform one."""

    @classmethod
    def of(
        cls, responses: Responses, scale: Scale, sweep: SurrogateParameters, parameters: ObjectiveParameters
    ) -> "SweepObjective":
        """Return the objective over the targets whose measured responses vary."""
        counts_T = scale.counts & varies(responses.response_NT)
        # of gains in nats the mean counts: there is no unit in which their spread or an entropy would weigh anything
        kind = "sum" if sweep.kind == "response" else sweep.objective
        return cls(kind, parameters, counts_T, Targets.of(responses.targets, counts_T, parameters))

    def aggregate(self, gains_NT: FloatArray) -> FloatArray:
        """Return F without the entropy, which needs no predicting: `α·std(P̂) − β·ΣP̂`, or `−ΣP̂`; shape (N,).

        With `optimize.fairness: softmin` it has `−α·softmin(P̂)` in the place of the spread.
        """
        even_N, gain_N = self.terms(gains_NT)
        if self.kind == "sum":
            return -gain_N
        uneven_N = even_N if self.parameters.fairness == "std" else -even_N
        return self.parameters.spread_weight * uneven_N - self.parameters.gain_of(len(self.targets.weight_U)) * gain_N

    def terms(self, gains_NT: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return `std(P̂)` or `softmin(P̂)`, and `ΣP̂` over the targets, without their weights in F; each (N,)."""
        gain_NU, weight_U = self.targets.gains(gains_NT), self.targets.weight_U
        is_soft = self.parameters.fairness == "softmin"
        even_N = softmin(gain_NU, weight_U, self.parameters.temperature) if is_soft else spread(gain_NU, weight_U)
        return even_N, total(gain_NU, weight_U)

    def entropy(self, weights_NK: FloatArray) -> FloatArray:
        """Return what the entropy adds to F: `−γ·(H(w) + w·ln q)`, or nothing; shape (N,)."""
        if self.kind == "sum":
            return np.zeros(len(weights_NK))
        log_NK = np.log(np.maximum(weights_NK, np.finfo(np.float64).tiny))
        pull_K = np.zeros(weights_NK.shape[1]) if self.anchor_K is None else np.log(self.anchor_K)
        less_N: FloatArray = self.parameters.entropy_weight * (weights_NK * (log_NK - pull_K)).sum(axis=1)
        return less_N


@dataclass(frozen=True, eq=False)
class RegressionData:
    """A sweep's responses and what is made of them."""

    measured: Responses
    """Every run that came through."""
    scale: Scale
    objective: SweepObjective | None
    """None where nothing but the targets themselves is asked for."""
    influence_TK: FloatArray | None
    """S that D decided on, over the same targets and domains; None for tables."""
    is_aggregate: bool
    """Whether the objective is fitted, instead of every target."""

    @classmethod
    def of(
        cls,
        measured: Responses,
        *,
        influence_TK: FloatArray | None,
        sweep: SurrogateParameters,
        parameters: ObjectiveParameters | None,
        known: Mapping[str, float] | None = None,
    ) -> "RegressionData":
        """Return the responses with the scale that suits their kind.

        Without parameters there is no objective: neither `sweep.target: aggregate` nor a search may ask for it. `known`
        is the share of each target's spread that its surrogate explains (`quality.explained`); None for all of it.

        Raises:
            TikmixError: too few runs came through, or a table has none of the tasks that `task_weights` or
                `task_groups` names.
        """
        is_sequence, is_table = sweep.kind == "response", influence_TK is None
        own = [n for n, run in enumerate(measured.runs) if is_table or is_sequence or run != REFERENCE]
        if len(own) < _FEWEST:
            raise TikmixError(_too_few(len(own), is_table=influence_TK is None))
        candidates = measured.take(own)
        scale = _scale(candidates, influence_TK, sweep, known)
        if influence_TK is None and parameters is not None:
            check_tasks(parameters, measured.targets)
        objective = None if parameters is None else SweepObjective.of(candidates, scale, sweep, parameters)
        return cls(measured, scale, objective, influence_TK, sweep.target == AGGREGATE)

    @property
    def responses(self) -> Responses:
        """What surrogates are fitted on."""
        return self.aggregated(self.measured)

    def additive(self, responses: Responses) -> FloatArray | None:
        """Return what `S w` predicts of these runs: every target, or the objective that D's gains `Ŝ w` make.

        It has as many columns as `responses` has when aggregated, lower is better; None without influence.
        """
        if self.influence_TK is None:
            return None
        gain_NT: FloatArray = responses.weights_NK @ self.influence_TK.T
        if not self.is_aggregate:
            return -gain_NT
        return self._aggregate(gain_NT / normaliser(self.influence_TK))

    def aggregated(self, responses: Responses) -> Responses:
        """Return other runs' responses as surrogates are fitted on them."""
        if not self.is_aggregate:
            return responses
        objective_N1 = self._aggregate(self.scale.gains(responses.response_NT))
        return Responses(responses.runs, responses.domains, (AGGREGATE,), responses.weights_NK, objective_N1)

    def _aggregate(self, gain_NT: FloatArray) -> FloatArray:
        if self.objective is None:
            raise ValueError("sweep.target: aggregate is the objective, whose parameters were not given")
        return self.objective.aggregate(gain_NT)[:, None]


def regression_data(
    ratios: "pd.DataFrame",
    metrics: "pd.DataFrame",
    sweep: SurrogateParameters,
    optimize: ObjectiveParameters | None,
    averaging: AveragingParameters,
    influences: Sequence["pd.DataFrame"] = (),
    known: Mapping[str, float] | None = None,
) -> RegressionData:
    """Return a sweep's measured responses, with the influence that D decided on where there is one.

    Args:
        ratios: the candidates, in Olmix's columns.
        metrics: the responses of those that came through.
        sweep: as in `RegressionData.of`, where `optimize` is called `parameters`.
        averaging: on which rounds D decided.
        influences: `influence.parquet` of the rounds so far; none for a user's tables.
        known: as in `RegressionData.of`.

    Raises:
        TikmixError: as `RegressionData.of`, or no run came through.
    """
    measured = responses_of(ratios, metrics)
    influence_TK = None
    if influences:
        tasks, influence_TK = averaged_influence(influences, measured.domains, averaging)
        influence_TK = influence_TK[[tasks.index(target) for target in measured.targets]]
    return RegressionData.of(measured, influence_TK=influence_TK, sweep=sweep, parameters=optimize, known=known)


def _too_few(count: int, *, is_table: bool) -> str:
    found = f"{count} run{' has a response' if count == 1 else 's have responses'}, and a surrogate needs {_FEWEST}."
    if is_table:
        return f"{found} Give the tables of sweep.table more rows; of rows that were left out a warning above says why."
    return (
        f"{found} The warnings above say which branches failed and why. Mend that, or raise sweep.candidates, and run "
        "sweep again."
    )


def _scale(
    candidates: Responses,
    influence_TK: FloatArray | None,
    sweep: SurrogateParameters,
    known: Mapping[str, float] | None,
) -> Scale:
    if influence_TK is None:
        return Scale.of_range(candidates.response_NT)
    if sweep.kind == "response":
        return Scale(candidates.response_NT.mean(axis=0), np.ones(len(candidates.targets)))
    normaliser_T = normaliser(influence_TK)
    if sweep.response == "influence":
        return Scale.of_normaliser(normaliser_T)
    direct_NT = candidates.weights_NK @ (influence_TK / normaliser_T[:, None]).T
    known_T = None if known is None else np.array([known[target] for target in candidates.targets])
    return Scale.like_direct(candidates.response_NT, direct_NT, known_T)
