"""The token budget of an external run: what its team tells, and what earlier rounds have recorded.

Between two chunks nobody but the team knows what its run has read. What it does not say is taken from the rounds
recorded so far: that every chunk was trained under the mixture decided for it, and was as long as was said then.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tikmix_pipeline.errors import TikmixError, quoted, require_known
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.simplex import by_name, check_mixture, prior_mixture
from tikmix_pipeline.parameters.remix import DomainSize, ExternalParameters

_ROUNDING = 1e-6

SizeSource = Literal["given", "estimated", "counted"]


@dataclass(frozen=True)
class SampledDomain:
    """What a sample of a domain tells of the whole; bytes are of its text in UTF-8."""

    tokens: int
    """Of the sample's training split."""
    bytes_per_token: float
    total_bytes: float | None = None
    """Of the whole domain; None where nothing but the sample is known."""
    is_estimate: bool = False
    """Whether `total_bytes` was estimated from the sample."""

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
    """What the round before has recorded: the budget at its end, and the mixture decided then."""

    budget: TokenBudget
    decided: MixtureRecord


def external_run_budget(
    number: int,
    samples: Mapping[str, SampledDomain],
    remix: ExternalParameters,
    *,
    prior: Literal["proportional", "uniform"] | Mapping[str, float],
    chunk_tokens: int,
    given: Mapping[str, float] | None = None,
    earlier: EarlierRound | None = None,
) -> tuple[TokenBudget, MixtureRecord]:
    """Return the token budget at a checkpoint of an external run, and the record of its current mixture.

    Args:
        number: the round that the checkpoint ends.
        remix: sizes and consumed tokens, as far as they are told.
        prior: `tikmix.prior`, the current mixture where `given` and `earlier` are None.
        chunk_tokens: of the coming chunk.
        given: the current mixture, as the team says.
        earlier: the round before, if this is not the first.

    Raises:
        TikmixError: a name is not a domain's, the current mixture is no mixture, fewer tokens were consumed than the
            round before began with, fewer remain than the coming chunk has, or the rounds have no domain in common.
    """
    check_external_run(remix, samples, chunk_tokens)
    sizes = {domain: sample.size(remix.sizes.get(domain)) for domain, sample in samples.items()}
    available = {domain: tokens for domain, (tokens, _) in sizes.items()}
    weights, strategy, notes = _current(available, prior, given, earlier)
    before: dict[str, float] = {} if earlier is None else dict(earlier.budget.consumed)
    # the chunk that ended was read by domains that may be gone since
    trained_under = weights if earlier is None or given is not None else earlier.decided.weights
    consumed = _consumed(remix.consumed, list(available), trained_under, before, earlier)
    budget = TokenBudget(
        round=number,
        available=available,
        consumed=consumed,
        chunk_tokens=chunk_tokens,
        remaining_tokens=remix.remaining_tokens,
        current=weights,
        size_source={domain: source for domain, (_, source) in sizes.items()},
        notes=notes,
    )
    tokens = {domain: round(read - before.get(domain, 0.0)) for domain, read in consumed.items()}
    record = MixtureRecord(
        round=number,
        strategy=strategy,
        chunk_tokens=sum(tokens.values()),
        weights=weights,
        tokens=tokens,
        epochs={domain: consumed[domain] / available[domain] for domain in available},
    )
    return budget, record


def _current(
    available: Mapping[str, float],
    prior: Literal["proportional", "uniform"] | Mapping[str, float],
    given: Mapping[str, float] | None,
    earlier: EarlierRound | None,
) -> tuple[dict[str, float], str, tuple[str, ...]]:
    """Return the current mixture, how it came about, and what a reader should know of it."""
    domains = list(available)
    if given is not None:
        return by_name(domains, check_mixture(given, domains, "remix.current")), "given", ()
    if earlier is None:
        return prior_mixture(prior, available), "prior", ()
    decided = earlier.decided.weights
    kept = {domain: float(decided.get(domain, 0)) for domain in domains}
    total = sum(kept.values())
    if total <= 0:
        raise TikmixError(
            f"The mixture of round {earlier.decided.round} of this experiment is over {quoted(list(decided))}, none "
            f"of which has a share and is among the domains now, {quoted(domains)}. Give this run an `experiment` of "
            "its own, or say what the current mixture is: remix.current."
        )
    notes = []
    if gone := [domain for domain in decided if domain not in domains]:
        notes.append(f"No longer there, so their shares are dealt to the rest: {quoted(gone)}.")
    if new := [domain for domain in domains if domain not in decided]:
        notes.append(f"New since the round before, so not in the current mixture: {quoted(new)}.")
    return {domain: weight / total for domain, weight in kept.items()}, earlier.decided.strategy, tuple(notes)


def _consumed(
    told: Mapping[str, float] | float | None,
    domains: Sequence[str],
    trained_under: Mapping[str, float],
    before: Mapping[str, float],
    earlier: EarlierRound | None,
) -> dict[str, float]:
    """Return the tokens that were trained on so far of each domain, those that are gone since among them."""
    names = dict.fromkeys([*domains, *before, *trained_under])
    read_before = math.fsum(before.values())
    if isinstance(told, Mapping):
        consumed = {name: float(told.get(name, before.get(name, 0.0))) for name in names}
        for domain, tokens in before.items():
            if consumed[domain] < tokens * (1 - _ROUNDING):
                raise TikmixError(
                    f"remix.consumed says that {consumed[domain]:.6g} tokens of '{domain}' were trained on, but the "
                    f"round before began with {tokens:.6g}. Give the tokens since the start of training, or choose "
                    "another `experiment`."
                )
    else:
        chunk = told - read_before if told is not None else earlier.budget.chunk_tokens if earlier is not None else 0
        consumed = {name: before.get(name, 0.0) + trained_under.get(name, 0.0) * chunk for name in names}
    if earlier is not None and math.fsum(consumed.values()) <= read_before * (1 + _ROUNDING):
        raise TikmixError(
            f"remix.consumed says that {math.fsum(consumed.values()):.6g} tokens were trained on, and the round before "
            f"began with {read_before:.6g}. Give the tokens since the start of training at this checkpoint, or leave "
            "remix.consumed out: then the last chunk was as long as remix.chunk_tokens."
        )
    return consumed


def check_external_run(remix: ExternalParameters, domains: Collection[str], chunk_tokens: int) -> None:
    """Refuse sizes and consumed tokens that are not of these domains, and a run that ends within the coming chunk.

    Raises:
        TikmixError: a name is not a domain's, `remix.consumed` leaves a domain out, or `remix.remaining_tokens` is less
            than the chunk.
    """
    if remix.remaining_tokens is not None and remix.remaining_tokens < chunk_tokens:
        raise TikmixError(
            f"remix.remaining_tokens is {remix.remaining_tokens}, less than the {chunk_tokens} tokens of the coming "
            "chunk, which are among them. Raise it, shorten the chunk (remix.chunk_tokens), or leave it out."
        )
    consumed = remix.consumed if isinstance(remix.consumed, Mapping) else None
    require_known("remix.sizes", "domain", remix.sizes, domains)
    require_known("remix.consumed", "domain", consumed or {}, domains)
    missing = [domain for domain in domains if consumed is not None and domain not in consumed]
    if missing:
        raise TikmixError(
            f"remix.consumed says nothing of {quoted(missing)}. Give every domain's tokens; 0 where none were read."
        )
