"""Tables of runs that changed their mixture on the way: a mixture per phase, in columns like `phase_0_web`.

A run is one mixture of (phase, domain) pairs, and each phase has its part of it: with P phases, taken to be equally
long, 1/P. So a surrogate learns what a domain does early and late, and what is decided is a mixture for every phase.
"""

import re
from collections.abc import Sequence

from tikmix_pipeline.parameters.decision import DomainGroup

_PHASE = re.compile(r"^((?:phase|stage)[\s_./:-]?\d+)[\s_./:-]+\S", re.IGNORECASE)


def phases_of(domains: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns of each phase, by its name; none where some column is of no phase, or all are of one."""
    found: dict[str, list[str]] = {}
    for domain in domains:
        matched = _PHASE.match(domain)
        if matched is None:
            return {}
        found.setdefault(matched[1], []).append(domain)
    return found if len(found) > 1 else {}


def phase_groups(domains: Sequence[str]) -> dict[str, DomainGroup]:
    """Return what holds each phase to its part of the run, as groups of domains."""
    phases = phases_of(domains)
    return {
        name: DomainGroup(domains=tuple(members), min=1 / len(phases), max=1 / len(phases))
        for name, members in phases.items()
    }


def phase_note(domains: Sequence[str]) -> str | None:
    """Say how a mixture of phases is to be read; None for any other."""
    count = len(phases_of(domains))
    if not count:
        return None
    return (
        f"There are {count} phases, taken to be equally long: weights are shares of the whole run, and a phase's own "
        f"weights are {count} times these."
    )
