"""What surrogates are fitted on: the measured responses, one target each, or the objective that they make together.

Axes: N candidates, K domains, T targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tikmix_pipeline.errors import TikmixError, quoted
from tikmix_pipeline.mixture.bounds import Bounds, unlimited_bounds
from tikmix_pipeline.mixture.normaliser import normaliser
from tikmix_pipeline.mixture.simplex import FloatArray, check_mixture
from tikmix_pipeline.mixture.sweep.goal import AGGREGATE, Goal
from tikmix_pipeline.mixture.sweep.responses import Responses, Scale
from tikmix_pipeline.mixture.targets import check_tasks
from tikmix_pipeline.parameters.decision import OptimizeParameters
from tikmix_pipeline.parameters.sweep import SweepParameters

REFERENCE = "reference"
"""The run of the mixture that no target may do worse than; measured beside the candidates, it is none of them. Only a
sweep around D has one: a user's table may name a run as it likes."""

_FEWEST = 8
"""Fewer runs than `sweep.candidates` may be are too few to fit and to judge."""


@dataclass(frozen=True, eq=False)
class Modelled:
    """A sweep's responses and what is made of them.

    Attributes:
        measured: every run with its responses.
        scale: the gains that responses are.
        goal: the objective as a function of gains.
        influence_TK: S of the same targets; None for tables.
        is_aggregate: whether the objective is fitted, instead of every target.
    """

    measured: Responses
    scale: Scale
    goal: Goal
    influence_TK: FloatArray | None
    is_aggregate: bool

    @classmethod
    def of(
        cls,
        measured: Responses,
        *,
        influence_TK: FloatArray | None,
        sweep: SweepParameters,
        parameters: OptimizeParameters,
    ) -> "Modelled":
        """Return the responses with the scale that suits their kind.

        Args:
            measured: every run that came through.
            influence_TK: S that D decided on, over the same targets and domains; None for tables.
            sweep: kind of response, target and objective.
            parameters: α, β and γ.

        Raises:
            TikmixError: too few runs came through, or a table has none of the tasks that `task_weights` or
                `task_groups` names.
        """
        own = [n for n, run in enumerate(measured.runs) if influence_TK is None or run != REFERENCE]
        if len(own) < _FEWEST:
            raise TikmixError(_too_few(len(own), is_table=influence_TK is None))
        candidates = measured.take(own)
        scale = _scale(candidates, influence_TK, sweep)
        if influence_TK is None:
            check_tasks(parameters, measured.targets)
        goal = Goal.of(candidates, scale, sweep, parameters)
        return cls(measured, scale, goal, influence_TK, sweep.target == AGGREGATE)

    @property
    def responses(self) -> Responses:
        """What surrogates are fitted on."""
        return self.aggregated(self.measured)

    def additive(self, responses: Responses) -> FloatArray | None:
        """Return what `S w` predicts of these runs: every target, or the objective that D's gains `Ŝ w` make.

        Returns:
            As many columns as `responses` has when aggregated, lower is better; None without influence.
        """
        if self.influence_TK is None:
            return None
        gain_NT: FloatArray = responses.weights_NK @ self.influence_TK.T
        if not self.is_aggregate:
            return -gain_NT
        return self.goal.aggregate(gain_NT / normaliser(self.influence_TK))[:, None]

    def aggregated(self, responses: Responses) -> Responses:
        """Return other runs' responses as surrogates are fitted on them."""
        if not self.is_aggregate:
            return responses
        objective_N1 = self.goal.aggregate(self.scale.gains(responses.response_NT))[:, None]
        return Responses(responses.runs, responses.domains, (AGGREGATE,), responses.weights_NK, objective_N1)


def _too_few(count: int, *, is_table: bool) -> str:
    found = f"{count} run{' has a response' if count == 1 else 's have responses'}, and a surrogate needs {_FEWEST}."
    if is_table:
        return (
            f"{found} A warning above says which rows of sweep.table were left out and why. Give the tables more rows, "
            "or mend the cells that are missing."
        )
    return (
        f"{found} The warnings above say which branches failed and why. Mend that, or raise sweep.candidates, and run "
        "sweep again."
    )


def _scale(candidates: Responses, influence_TK: FloatArray | None, sweep: SweepParameters) -> Scale:
    if influence_TK is None:
        return Scale.of_range(candidates.response_NT)
    normaliser_T = normaliser(influence_TK)
    if sweep.response == "influence":
        return Scale.of_normaliser(normaliser_T)
    direct_NT = candidates.weights_NK @ (influence_TK / normaliser_T[:, None]).T
    return Scale.like_direct(candidates.response_NT, direct_NT)


def table_bounds(parameters: OptimizeParameters, responses: Responses, prior_K: FloatArray | None) -> Bounds:
    """Return the user's bounds on a table's domains; `current` pins to the prior, as nothing is in force.

    Raises:
        TikmixError: as in `mixture_bounds`, or a domain is pinned to a prior that nobody knows.
    """
    pinned = [domain for domain, pin in parameters.pinned.items() if pin == "current"]
    if pinned and prior_K is None:
        raise TikmixError(
            f"optimize.pinned holds {quoted(pinned)} at what is in force, but with tables nothing is, and their prior "
            "is not known. Give weights, or set tikmix.prior to uniform or to weights of the tables' domains."
        )
    prior = None if prior_K is None else dict(zip(responses.domains, prior_K.tolist(), strict=True))
    return unlimited_bounds(parameters, responses.domains, prior)


def covered_box(responses: Responses, bounds: Bounds) -> tuple[FloatArray, FloatArray]:
    """Return the smallest and the largest weight of each domain in any run, inside the bounds.

    Limits on groups stay the bounds' own; the box leaves room within them.

    Raises:
        TikmixError: no mixture is both inside the bounds and inside what the runs cover.
    """
    least_K, most_K = bounds.box()
    low_K = np.maximum(responses.weights_NK.min(axis=0), least_K)
    high_K = np.minimum(responses.weights_NK.max(axis=0), most_K)
    if not bounds.halfspaces().has_room((low_K, high_K)):
        raise TikmixError(
            "No mixture is inside both optimize.bounds (min_weight, max_weight, groups, pinned) and what the runs of "
            "the tables cover. Loosen the bounds: nothing is known of mixtures beyond the runs."
        )
    return low_K, high_K


def table_prior(prior: str | Mapping[str, float], responses: Responses) -> FloatArray | None:
    """Return what a table's mixtures are compared with; None for `proportional`, as nothing is known of the text.

    Raises:
        TikmixError: the given weights are no mixture of the table's domains.
    """
    if prior == "proportional":
        return None
    if isinstance(prior, str):
        return np.full(len(responses.domains), 1 / len(responses.domains))
    return check_mixture(prior, responses.domains, "tikmix.prior")
