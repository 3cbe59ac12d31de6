"""The stock of a run that trains elsewhere: what its team tells, and what earlier rounds have recorded.

Between two chunks nobody but the team knows what its run has read. What it does not say is taken from the rounds
recorded so far: that every chunk was trained under the mixture decided for it, and was as long as was said then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.prior import prior_mixture
from tikmix_pipeline.mixture.simplex import check_mixture, nearest_name, quoted
from tikmix_pipeline.mixture.stock import Stock
from tikmix_pipeline.parameters.remix import DomainSize, RemixParameters

SizeSource = Literal["given", "estimated", "counted"]


@dataclass(frozen=True)
class SampledDomain:
    """What a sample of a domain tells of the whole.

    Attributes:
        tokens: of the sample's training split.
        bytes_per_token: UTF-8 bytes of text per token of it.
        total_bytes: UTF-8 bytes of the whole domain; None where nothing but the sample is known.
        is_estimate: `total_bytes` was estimated from the sample.
    """

    tokens: int
    bytes_per_token: float
    total_bytes: float | None = None
    is_estimate: bool = False

    def size(self, given: DomainSize | None) -> tuple[float, SizeSource]:
        """Return the tokens of the whole domain, and how they are known."""
        if given is not None and given.tokens is not None:
            return given.tokens, "given"
        if given is not None and given.bytes is not None:
            return given.bytes / self.bytes_per_token, "given"
        if self.total_bytes is None:
            return self.tokens, "counted"
        return self.total_bytes / self.bytes_per_token, "estimated" if self.is_estimate else "counted"


@dataclass(frozen=True)
class EarlierRound:
    """What the round before has recorded.

    Attributes:
        stock: at the end of that round.
        decided: the record of the mixture decided then.
    """

    stock: Stock
    decided: Mapping[str, Any]


def stock_elsewhere(
    number: int,
    samples: Mapping[str, SampledDomain],
    remix: RemixParameters,
    *,
    prior: Literal["proportional", "uniform"] | Mapping[str, float],
    chunk_tokens: int,
    given: Mapping[str, float] | None = None,
    earlier: EarlierRound | None = None,
) -> tuple[Stock, dict[str, Any]]:
    """Return the stock at a checkpoint of a run elsewhere, and the record of the mixture in force.

    Args:
        number: the round that the checkpoint ends.
        samples: by domain.
        remix: sizes and consumed tokens, as far as they are told.
        prior: `tikmix.prior`, in force at first where `given` and `earlier` are None.
        chunk_tokens: of the coming chunk.
        given: the mixture in force, as the team says.
        earlier: the round before, if this is not the first.

    Raises:
        TikmixError: a name is not a domain's, the mixture in force is no mixture, fewer tokens were consumed than the
            round before began with, or the rounds have no domain in common.
    """
    for parameter, names in (("remix.sizes", remix.sizes), ("remix.consumed", _names_of(remix.consumed))):
        _refuse_unknown(parameter, names, samples)
    sizes = {domain: sample.size(remix.sizes.get(domain)) for domain, sample in samples.items()}
    available = {domain: tokens for domain, (tokens, _) in sizes.items()}
    weights, strategy, notes = _in_force(available, prior, given, earlier)
    before = dict.fromkeys(available, 0.0) if earlier is None else _of_domains(earlier.stock.consumed, available)
    consumed = _consumed(remix.consumed, weights, before, earlier)
    stock = Stock(
        round=number,
        available=available,
        consumed=consumed,
        chunk_tokens=chunk_tokens,
        in_force=weights,
        size_source={domain: source for domain, (_, source) in sizes.items()},
        notes=notes,
    )
    tokens = {domain: round(consumed[domain] - before[domain]) for domain in available}
    record = {
        "round": number,
        "strategy": strategy,
        "chunk_tokens": sum(tokens.values()),
        "weights": weights,
        "tokens": tokens,
        "epochs": {domain: consumed[domain] / available[domain] for domain in available},
    }
    return stock, record


def _in_force(
    available: Mapping[str, float],
    prior: Literal["proportional", "uniform"] | Mapping[str, float],
    given: Mapping[str, float] | None,
    earlier: EarlierRound | None,
) -> tuple[dict[str, float], str, tuple[str, ...]]:
    """Return the mixture in force, how it came about, and what a reader should know of it."""
    domains = list(available)
    if given is not None:
        weights_K = check_mixture(given, domains, "remix.current")
        return dict(zip(domains, weights_K.tolist(), strict=True)), "given", ()
    if earlier is None:
        return prior_mixture(prior, available), "prior", ()
    decided: Mapping[str, float] = earlier.decided["weights"]
    kept = _of_domains(decided, available)
    total = sum(kept.values())
    if total <= 0:
        raise TikmixError(
            f"The mixture of round {earlier.decided['round']} of this experiment is over {quoted(list(decided))}, none "
            f"of which has a share and is among the domains now, {quoted(domains)}. Give this run an `experiment` of "
            "its own, or say what mixture is in force: remix.current."
        )
    weights = {domain: weight / total for domain, weight in kept.items()}
    return weights, str(earlier.decided["strategy"]), tuple(_changes(decided, domains))


def _changes(decided: Mapping[str, float], domains: list[str]) -> list[str]:
    gone = [domain for domain in decided if domain not in domains]
    new = [domain for domain in domains if domain not in decided]
    return [
        *([f"No longer there, so their shares are dealt to the rest: {quoted(gone)}."] if gone else []),
        *([f"New since the round before, so not in force: {quoted(new)}."] if new else []),
    ]


def _consumed(
    told: Mapping[str, float] | float | None,
    weights: Mapping[str, float],
    before: Mapping[str, float],
    earlier: EarlierRound | None,
) -> dict[str, float]:
    """Return the tokens of each domain that were trained on so far."""
    if told is None:
        chunk = 0 if earlier is None else earlier.stock.chunk_tokens
        return {domain: before[domain] + weight * chunk for domain, weight in weights.items()}
    if isinstance(told, Mapping):
        consumed = {domain: float(told.get(domain, 0)) for domain in weights}
    else:
        since = told - sum(before.values())
        consumed = {domain: before[domain] + weight * since for domain, weight in weights.items()}
    for domain, tokens in consumed.items():
        if tokens < before[domain]:
            raise TikmixError(
                f"remix.consumed says that {tokens:.6g} tokens of '{domain}' were trained on, but the round before "
                f"began with {before[domain]:.6g}. Give the tokens since the start of training, or choose another "
                "`experiment`."
            )
    return consumed


def _of_domains(values: Mapping[str, float], domains: Mapping[str, float]) -> dict[str, float]:
    return {domain: float(values.get(domain, 0)) for domain in domains}


def _names_of(told: Mapping[str, float] | float | None) -> list[str]:
    return list(told) if isinstance(told, Mapping) else []


def _refuse_unknown(parameter: str, names: Mapping[str, Any] | list[str], domains: Mapping[str, Any]) -> None:
    for name in names:
        if name not in domains:
            raise TikmixError(
                f"{parameter} names the domain '{name}', which is not there.{nearest_name(name, list(domains))}"
            )
