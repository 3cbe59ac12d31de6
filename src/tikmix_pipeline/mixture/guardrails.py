"""Guardrails: text that may not get worse than under the prior by more than a tolerance.

A guardrail g is about the held-out text of one domain, of several, or of all, or about a task. It asks

    gain_g(w) + ρ · mean_t gain_t(w) ≥ −slack,

with ρ = tolerance / φ where that is a share of what the tasks gain, and else slack, the tolerance in the units of S.
What held-out text gains is told by `mixture.own_share`, in one of two ways. φ says how many times as many nats a unit
of its gain is as of a task's: 1 of a task, and of held-out text what branches have measured (`heldout_branches`), or
`optimize.heldout_strength`. Without branches it is as many by the logarithm; to second order 1.75 times as many, which
holds for seven domains and is far too few for eighteen (docs/results.md).
Both sides are concave, so the guarded mixtures are a convex set, and the reference, which is the prior or the nearest
mixture inside the bounds, is one of them.

    nats           slack = tolerance / (φ c₁), with c₁ nats per unit of S as branches have measured it
    percent        that of a hundredth of the text's loss at the checkpoint
    bits_per_byte  tolerance · ln 2 / (φ c₁ · mean_j 1/B_j), B_j being bytes per token; the mean over domains is then
                   that of bits per byte, `D_g = Σ_j D_j (1/B_j) / Σ_j 1/B_j`
    stderr         tolerance · √Σ_k ((w° − w_ref)_k σ_gk)², w° being the mixture that is the best without guardrails

σ are the standard errors of the products (of a mean over domains the mean of theirs, which is no less than the mean's).
They are taken at w°, and so are constants: an error that moved with w would make of the tolerance a reward for moving
far. What a text's chunks bring to all of its products alike cancels in a contrast and is counted nonetheless, so the
error is rather too wide.

Axes: C guardrails, M domains of one of them, T tasks, K domains.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tikmix_pipeline.errors import TikmixError, nearest_name, require_known
from tikmix_pipeline.mixture.bounds import Limit
from tikmix_pipeline.mixture.heldout_branches import measured_strength
from tikmix_pipeline.mixture.influence_matrix import magnitude
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.own_share import Logarithms, TextGain
from tikmix_pipeline.mixture.records import BindingKind
from tikmix_pipeline.mixture.response_fit import MeasuredResponse
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.parameters.guardrails import Guardrail

EVERYTHING = "heldout"
"""The name of the guardrail on the held-out text of all domains together."""

EACH = "each_domain"
"""The name that stands for a guardrail on the held-out text of every domain by itself."""


@dataclass(frozen=True, eq=False)
class GuardedText:
    """What one guardrail asks, in the units of S."""

    name: str
    """Of the guardrail, or of the domain where it is one of `each_domain`."""
    parameter: str
    guardrail: Guardrail
    gain: TextGain
    """What its text gains."""
    influence_K: FloatArray
    """Of the domains on its text."""
    strength: float = 1.0
    """φ."""
    per_unit: float = 0.0
    """How much slack one unit of tolerance is; none where that is a share."""
    loss: float | None = None
    """Of its text at the checkpoint, in nats per token, where that is known."""
    stderr_K: FloatArray | None = None
    """The standard errors of the row, where the unit is `stderr`."""

    @property
    def slack(self) -> float:
        """How much less than under the reference its gain may be, whatever the tasks gain."""
        return self.per_unit * self.guardrail.tolerance

    @property
    def share(self) -> float:
        """ρ."""
        return self.guardrail.tolerance / self.strength if self.guardrail.unit == "share" else 0.0

    def with_tolerance(self, tolerance: float) -> "GuardedText":
        """Return the same guardrail with another tolerance."""
        return replace(self, guardrail=self.guardrail.model_copy(update={"tolerance": tolerance}))


@dataclass(frozen=True, eq=False)
class Told:
    """What was measured that guardrails are told by."""

    domains: Sequence[str]
    tasks: Sequence[str]
    influence_TK: FloatArray
    """S."""
    heldout_KK: FloatArray
    """D."""
    heldout_strength: float = 1.0
    """φ of held-out text where no branches say it."""
    log_KK: FloatArray | None = None
    """What own shares count by their logarithms (`own_share.own_logarithms`); None where gains are to second order."""
    prior_K: FloatArray | None = None
    """What the logarithms are relative to."""
    saturation: float = 0.0
    """r."""
    curved_KK: FloatArray | None = None
    """Q, which gains of second order bend by."""
    measured: MeasuredResponse | None = None
    """What branches have told."""
    influence_stderr_TK: FloatArray | None = None
    heldout_stderr_KK: FloatArray | None = None
    """Of S and of D, where they are known."""
    moved_K: FloatArray | None = None
    """`w° − w_ref`, which `stderr` asks for."""

    def gain(self, row_K: FloatArray, log_K: FloatArray | None) -> TextGain:
        """Return what a text gains: to second order, or by the logarithms of own shares where they are given."""
        if log_K is None or self.prior_K is None:
            return TextGain.second_order(row_K)
        return TextGain.logarithm(row_K, log_K, self.prior_K)


def guarded_texts(guardrails: Mapping[str, Guardrail | None], told: Told) -> Iterator[GuardedText]:
    """Yield what each guardrail that is set asks.

    Raises:
        TikmixError: a name is neither a domain nor a task, or a tolerance is in a unit that was not measured.
    """
    for name, key, guardrail in _each(guardrails, told.domains):
        members = _members(name, key, guardrail, told.domains, told.tasks)
        row_K = _mean(told.heldout_KK, members, told, guardrail) if members else told.influence_TK[_task(told, name)]
        log_K = _mean(told.log_KK, members, told, guardrail) if members and told.log_KK is not None else None
        gain = told.gain(row_K, log_K)
        strength = _strength(gain, members, guardrail, told) if members else 1.0
        per_unit = 0.0 if guardrail.unit == "share" else _per_unit(name, key, guardrail, members, strength, told)
        loss = _loss(told.measured, members or (name,))
        stderr_K = _errors(name, guardrail, members, told) if guardrail.unit == "stderr" else None
        parameter = f"optimize.guardrails.{key}"
        yield GuardedText(name, parameter, guardrail, gain, row_K, strength, per_unit, loss, stderr_K)


def guardrail_limits(texts: Sequence[GuardedText]) -> Iterator[tuple[str, BindingKind, Limit]]:
    """Yield what each guardrail holds a decision to."""
    for text in texts:
        limit = Limit(text.guardrail.tolerance, "prior", text.parameter, text.guardrail.unit)
        yield text.name, "guardrail", limit


def gains_of_domains(told: Told) -> Iterator[TextGain]:
    """Yield what the held-out text of each domain gains."""
    for k, row_K in enumerate(told.heldout_KK):
        yield told.gain(row_K, None if told.log_KK is None else told.log_KK[k])


def check_guardrails(guardrails: Mapping[str, Guardrail | None], domains: Sequence[str], tasks: Sequence[str]) -> None:
    """Refuse guardrails that are about nothing.

    Raises:
        TikmixError: as `guarded_texts`.
    """
    for name, key, guardrail in _each(guardrails, domains):
        _members(name, key, guardrail, domains, tasks)


def guardrail_constraints(
    gains: Sequence[TextGain],
    share_C: FloatArray,
    slack_C: FloatArray,
    *,
    mean_K: FloatArray,
    reference_K: FloatArray,
    saturation: float,
    curved_KK: FloatArray,
) -> LeastGains:
    """Return guardrails as constraints, in the unit of the tasks' mean influence, so that prices do not depend on S's.

    Args:
        gains: of each text, in the units of S.
        share_C: ρ.
        slack_C: in the units of S.
        mean_K: the influence on the mean of the tasks.
        reference_K: the mixture that gains are over.
        saturation: r.
        curved_KK: Q.
    """
    summed_CK = np.array([gain.row_K for gain in gains]).reshape(len(gains), len(mean_K)) + np.outer(share_C, mean_K)
    bend_C = saturation * (np.array([gain.bends for gain in gains], dtype=np.float64) + share_C)
    log_CK = np.array([gain.log_K for gain in gains]).reshape(len(gains), len(mean_K))
    floor_K = np.max([gain.floor_K for gain in gains], axis=0, initial=0.0)
    logarithms = Logarithms(log_CK, floor_K) if log_CK.any() else None
    constraints = LeastGains(summed_CK, reference_K, slack_C, bend_C, curved_KK, logarithms)
    zeros_C = np.zeros(len(gains))
    return constraints.scaled(zeros_C, zeros_C + magnitude(mean_K[None]))


def _each(guardrails: Mapping[str, Guardrail | None], domains: Sequence[str]) -> Iterator[tuple[str, str, Guardrail]]:
    """Yield the name, the key in the parameters, and what is asked, of every guardrail that is set."""
    for key, guardrail in guardrails.items():
        if guardrail is None:
            continue
        if key != EACH or EACH in domains:
            yield key, key, guardrail
            continue
        members = guardrail.domains or domains
        require_known(f"optimize.guardrails.{EACH}.domains", "domain", members, domains)
        alone = guardrail.model_copy(update={"domains": None})
        # a domain that has a guardrail of its own, or none by name, keeps that
        yield from ((member, EACH, alone) for member in members if member not in guardrails)


def _members(
    name: str, key: str, guardrail: Guardrail, domains: Sequence[str], tasks: Sequence[str]
) -> tuple[str, ...]:
    """Return the domains whose text a guardrail is about; none where it is about a task."""
    if guardrail.domains:
        require_known(f"optimize.guardrails.{key}.domains", "domain", guardrail.domains, domains)
        return guardrail.domains
    if name in domains:
        return (name,)
    if name in tasks:
        return ()
    if name == EVERYTHING:
        return tuple(domains)
    raise TikmixError(
        f"optimize.guardrails names '{name}', which is neither a domain nor a task."
        f"{nearest_name(name, [*domains, *tasks])} Give it `domains`, call it '{EVERYTHING}' for all of them together "
        f"or '{EACH}' for each of them, or set it to null."
    )


def _task(told: Told, name: str) -> int:
    return list(told.tasks).index(name)


def _mean(values_KK: FloatArray, members: Sequence[str], told: Told, guardrail: Guardrail) -> FloatArray:
    """Return the mean over the rows of some domains: of their nats per token, or of their bits per byte."""
    rows_MK = values_KK[[list(told.domains).index(member) for member in members]]
    if guardrail.unit == "bits_per_byte" and told.measured is not None:
        tokens_M = _tokens_per_byte(told.measured, members)
        weighed_K: FloatArray = tokens_M @ rows_MK / tokens_M.sum()
        return weighed_K
    mean_K: FloatArray = rows_MK.mean(axis=0)
    return mean_K


def _strength(gain: TextGain, members: Sequence[str], guardrail: Guardrail, told: Told) -> float:
    """Return φ of held-out text, as branches have measured it where they have."""
    measured, rule = told.measured, told.heldout_strength
    if measured is None or measured.heldout is None or not measured.fitted.is_told:
        return rule
    branches, curved_KK = measured.heldout, np.zeros_like(told.heldout_KK) if told.curved_KK is None else told.curved_KK
    told_N = np.array([gain.over(w_K, branches.reference_K, told.saturation, curved_KK) for w_K in branches.weights_NK])
    gain_N = _mean(branches.gain_KN, members, told, guardrail)
    return measured_strength(told_N, gain_N, measured.fitted.scale, rule)


def _tokens_per_byte(measured: MeasuredResponse, members: Sequence[str]) -> FloatArray:
    return 1 / np.array([measured.bytes_per_token[member] for member in members])


def _loss(measured: MeasuredResponse | None, names: Sequence[str]) -> float | None:
    if measured is None or not measured.fitted.is_told or any(name not in measured.losses for name in names):
        return None
    return sum(measured.losses[name] for name in names) / len(names)


def _per_unit(name: str, key: str, guardrail: Guardrail, members: Sequence[str], strength: float, told: Told) -> float:
    """Return what one unit of tolerance is in the units of S."""
    if guardrail.unit == "stderr":
        return _error(name, key, guardrail, members, told)
    measured = told.measured
    if measured is None or not measured.fitted.is_told:
        raise TikmixError(
            f"optimize.guardrails.{key}.unit is {guardrail.unit}, but nothing says what a gain is in nats at this "
            "checkpoint. Let branches measure it (optimize.branches=6, or more of them where they do not tell), or "
            "give the tolerance as a share of what the tasks gain (unit: share)."
        )
    names, nats = members or (name,), 1.0
    if guardrail.unit == "percent":
        nats = sum(measured.losses[one] for one in names) / len(names) / 100
    elif guardrail.unit == "bits_per_byte":
        nats = float(np.log(2) / _tokens_per_byte(measured, names).mean())
    return nats / (strength * measured.fitted.scale)


def _errors(name: str, guardrail: Guardrail, members: Sequence[str], told: Told) -> FloatArray | None:
    """Return the standard errors of what domains do for a text, where they are known."""
    errors = told.heldout_stderr_KK if members else told.influence_stderr_TK
    if errors is None:
        return None
    return _mean(errors, members, told, guardrail) if members else errors[_task(told, name)]


def _error(name: str, key: str, guardrail: Guardrail, members: Sequence[str], told: Told) -> float:
    """Return the standard error of the text's gain under the mixture that would be decided without guardrails."""
    of_text_K = _errors(name, guardrail, members, told)
    error = float("nan")
    if of_text_K is not None and told.moved_K is not None:
        error = float(np.linalg.norm(np.where(told.moved_K == 0, 0.0, of_text_K * told.moved_K)))
    if not np.isfinite(error):
        raise TikmixError(
            f"optimize.guardrails.{key}.unit is stderr, but the standard errors of what domains do for '{name}' are "
            "not known: two gradient chunks of a domain tell none. Set influence.micro_batches to 3 or more and "
            "measure again, or give the tolerance as a share of what the tasks gain (unit: share)."
        )
    return error
