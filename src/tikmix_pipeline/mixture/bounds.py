"""Bounds on each domain's weight, from the user and from how much text there is.

A domain may not be read more than `optimize.max_epochs` times by the end of the coming chunk of C tokens:
`w_j · C + consumed_j ≤ max_epochs · available_j`. Nor may its weight move further than `optimize.max_change` from the
mixture in force: influence is local, and says little of mixtures far away. Every bound remembers where it comes from,
so that a report can say what to change, and bounds that no mixture satisfies are refused with the parameters that
clash.

Axes: K domains.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.simplex import FloatArray, nearest_name
from tikmix_pipeline.parameters.decision import OptimizeParameters

_ROUNDING = 1e-9  # 26 × (1/26) need not be 1 in floats


@dataclass(frozen=True)
class Supply:
    """How much text of a domain there is.

    Attributes:
        available: its training tokens, more than none; `math.inf` where repetition is no concern.
        consumed: the tokens of it that were trained on so far, repetitions counted.
    """

    available: float
    consumed: float = 0


@dataclass(frozen=True)
class Limit:
    """One bound on one domain's weight.

    Attributes:
        weight: the bound.
        reason: `simplex` (a weight is from 0 to 1), `user`, `repetition` or `change`.
        parameter: the parameter that sets it; empty for the simplex.
    """

    weight: float
    reason: Literal["simplex", "user", "repetition", "change"] = "simplex"
    parameter: str = ""

    def __str__(self) -> str:
        return f"{self.parameter} = {self.weight:.6g}" if self.reason == "user" else f"{self.weight:.6g}"


@dataclass(frozen=True)
class Bounds:
    """The box that a mixture lies in; it holds at least one mixture."""

    domains: tuple[str, ...]
    lower: tuple[Limit, ...]
    upper: tuple[Limit, ...]

    def box(self) -> tuple[FloatArray, FloatArray]:
        """Return the smallest weights `low_K` and the largest `high_K`."""
        return np.array([limit.weight for limit in self.lower]), np.array([limit.weight for limit in self.upper])

    def project(self, weights_K: FloatArray) -> FloatArray:
        """Return the mixture inside the bounds that is nearest to `weights_K` in the Euclidean norm.

        That is `clip(w + shift, low, high)` for the one shift at which it sums to 1. A mixture inside is its own
        projection.
        """
        low_K, high_K = self.box()
        if np.all((low_K <= weights_K) & (weights_K <= high_K)) and abs(weights_K.sum() - 1) <= _ROUNDING:
            return weights_K.copy()
        below, above = float((low_K - weights_K).min()), float((high_K - weights_K).max())
        for _ in range(100):
            shift = (below + above) / 2
            if np.clip(weights_K + shift, low_K, high_K).sum() < 1:
                below = shift
            else:
                above = shift
        return np.clip(weights_K + above, low_K, high_K)


def mixture_bounds(parameters: OptimizeParameters, supplies: Mapping[str, Supply], chunk_tokens: int) -> Bounds:
    """Return the tightest bound on each domain on either side.

    Args:
        parameters: `min_weight`, `max_weight`, `bounds` and `max_epochs`.
        supplies: the text of each domain; its keys are the domains.
        chunk_tokens: C, the training tokens of the coming chunk.

    Raises:
        TikmixError: `optimize.bounds` names an unknown domain, a domain has no text, or no mixture satisfies all
            bounds; the message says which of them clash and what would make room.
    """
    for name in parameters.bounds:
        if name not in supplies:
            raise TikmixError(
                f"optimize.bounds names the domain '{name}', which is not there.{nearest_name(name, supplies)}"
            )
    for domain, supply in supplies.items():
        if supply.available <= 0:
            raise TikmixError(f"The domain '{domain}' has no training tokens. Give it text, or leave it out.")
    bounds = Bounds(
        domains=tuple(supplies),
        lower=tuple(_lower_limit(domain, parameters) for domain in supplies),
        upper=tuple(_upper_limit(domain, parameters, supply, chunk_tokens) for domain, supply in supplies.items()),
    )
    _refuse_crossed(bounds, supplies, chunk_tokens)
    _refuse_too_high(bounds)
    _refuse_too_low(bounds, parameters, supplies, chunk_tokens)
    return bounds


def within_reach(bounds: Bounds, current: Mapping[str, float], max_change: float) -> Bounds:
    """Return the bounds narrowed to weights that differ from the mixture in force by at most `max_change`.

    What the other bounds ask for goes first: where they have moved away from the mixture in force, the distance is
    taken from the nearest mixture inside them. So there is always a mixture left.

    Args:
        bounds: of the coming chunk.
        current: the weights in force, by domain.
        max_change: δ of `|w_j − current_j| ≤ δ`.
    """
    current_K = bounds.project(np.array([current[domain] for domain in bounds.domains]))

    def nearer(limit: Limit, reach: float, tighter: bool) -> Limit:
        return Limit(reach, "change", "optimize.max_change") if tighter else limit

    reaches = [(weight - max_change, weight + max_change) for weight in current_K.tolist()]
    return Bounds(
        domains=bounds.domains,
        lower=tuple(
            nearer(limit, low, low > limit.weight) for limit, (low, _) in zip(bounds.lower, reaches, strict=True)
        ),
        upper=tuple(
            nearer(limit, high, high < limit.weight) for limit, (_, high) in zip(bounds.upper, reaches, strict=True)
        ),
    )


def unlimited_bounds(parameters: OptimizeParameters, domains: Iterable[str]) -> Bounds:
    """Return the user's bounds alone, as if there were text of every domain without end.

    Raises:
        TikmixError: as in `mixture_bounds`.
    """
    return mixture_bounds(parameters, {domain: Supply(math.inf) for domain in domains}, 1)


def require_supply(parameters: OptimizeParameters, available: Mapping[str, int], run_tokens: int) -> None:
    """Refuse a run that is longer than all text read `max_epochs` times.

    Args:
        available: training tokens of each domain.
        run_tokens: training tokens of all rounds together.

    Raises:
        TikmixError: naming the least `optimize.max_epochs` that would do.
    """
    total = sum(available.values())
    if run_tokens > parameters.max_epochs * total:
        raise TikmixError(
            f"All rounds together train on {run_tokens} tokens, but the corpus has {total}, which may be read "
            f"optimize.max_epochs = {parameters.max_epochs:.6g} times. Raise it to {_round_up(run_tokens / total)}, "
            "train less (train.chunk_tokens, tikmix.rounds) or add text."
        )


def _lower_limit(domain: str, parameters: OptimizeParameters) -> Limit:
    limits = [Limit(0.0), Limit(parameters.min_weight, "user", "optimize.min_weight")]
    if domain in parameters.bounds:
        limits.append(Limit(parameters.bounds[domain].min, "user", f"optimize.bounds.{domain}.min"))
    return max(limits, key=lambda limit: limit.weight)


def _upper_limit(domain: str, parameters: OptimizeParameters, supply: Supply, chunk_tokens: int) -> Limit:
    limits = [Limit(1.0), Limit(parameters.max_weight, "user", "optimize.max_weight")]
    if domain in parameters.bounds:
        limits.append(Limit(parameters.bounds[domain].max, "user", f"optimize.bounds.{domain}.max"))
    readable = parameters.max_epochs * supply.available - supply.consumed
    limits.append(Limit(max(0.0, readable / chunk_tokens), "repetition", "optimize.max_epochs"))
    return min(limits, key=lambda limit: limit.weight)


def _refuse_crossed(bounds: Bounds, supplies: Mapping[str, Supply], chunk_tokens: int) -> None:
    for domain, low, high in zip(bounds.domains, bounds.lower, bounds.upper, strict=True):
        if low.weight <= high.weight:
            continue
        if high.reason == "user":
            raise TikmixError(f"{low} is above {high} for the domain '{domain}'. Lower the first or raise the second.")
        supply = supplies[domain]
        needed = (low.weight * chunk_tokens + supply.consumed) / supply.available
        raise TikmixError(
            f"{low} asks for more of the domain '{domain}' than repetition allows: at most {high} of the next "
            f"{chunk_tokens} tokens ({supply.available:.0f} tokens are there, {supply.consumed:.0f} were read). "
            f"Lower {low.parameter} to that, or raise optimize.max_epochs to {_round_up(needed)}."
        )


def _refuse_too_high(bounds: Bounds) -> None:
    total = math.fsum(limit.weight for limit in bounds.lower)
    if total > 1 + _ROUNDING:
        raise TikmixError(
            f"The lower bounds sum to {total:.6g}, above 1: {_listed(bounds.lower)}. Lower them until they sum to at "
            "most 1."
        )


def _refuse_too_low(
    bounds: Bounds, parameters: OptimizeParameters, supplies: Mapping[str, Supply], chunk_tokens: int
) -> None:
    total = math.fsum(limit.weight for limit in bounds.upper)
    if total >= 1 - _ROUNDING:
        return
    capped = [domain for domain, limit in zip(bounds.domains, bounds.upper, strict=True) if limit.reason != "user"]
    causes, cures = [], []
    if len(capped) < len(bounds.domains):
        causes.append(_listed(bounds.upper))
        cures.append("raise the upper bounds")
    if capped:
        share = math.fsum(limit.weight for limit in bounds.upper if limit.reason != "user")
        causes.append(f"repetition leaves {share:.6g} of the next {chunk_tokens} tokens to {', '.join(capped)}")
        needed = _epochs_needed(parameters, supplies, chunk_tokens)
        if needed is not None:
            cures.append(f"raise optimize.max_epochs from {parameters.max_epochs:.6g} to {_round_up(needed)}")
        cures.append("shorten the chunk (train.chunk_tokens) or add text")
    raise TikmixError(
        f"The upper bounds sum to {total:.6g}, below 1, so no mixture fits: {'; '.join(causes)}. "
        f"To make room, {', or '.join(cures)}."
    )


def _listed(limits: Iterable[Limit]) -> str:
    """Return the user's own bounds, one that many domains share written once."""
    parameters = [str(limit) for limit in limits if limit.reason == "user"]
    counted = {text: parameters.count(text) for text in parameters}
    return ", ".join(text if count == 1 else f"{text} for {count} domains" for text, count in counted.items())


def _epochs_needed(parameters: OptimizeParameters, supplies: Mapping[str, Supply], chunk_tokens: int) -> float | None:
    """Return the least `max_epochs` whose upper bounds sum to 1; None where the user's bounds alone fall short."""

    def total(epochs: float) -> float:
        trial = parameters.model_copy(update={"max_epochs": epochs})
        return sum(_upper_limit(domain, trial, supply, chunk_tokens).weight for domain, supply in supplies.items())

    below = parameters.max_epochs
    above = max((chunk_tokens + supply.consumed) / supply.available for supply in supplies.values())
    if total(above) < 1:
        return None
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if total(middle) < 1 else (below, middle)
    return above


def _round_up(value: float) -> str:
    """Return the value to three significant digits, never less than it."""
    digits = 2 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10**digits) / 10**digits:.6g}"
