"""Every constraint in force as a sentence, and which of them hold the mixture back."""

import re
from collections.abc import Iterator, Sequence

from tikmix_pipeline.mixture.decision import Binding
from tikmix_pipeline.mixture.report import holder, in_words
from tikmix_pipeline.mixture.simplex import quoted
from tikmix_pipeline.parameters.decision import OptimizeParameters


def constraint_lines(optimize: OptimizeParameters, binding: Sequence[Binding]) -> tuple[str, ...]:
    """Return the constraints of `optimize` in words, those on groups with whether they bind.

    What binds a single domain or task is said in its own row.
    """
    bound_groups = {one.name: in_words(one) for one in binding if one.kind in ("group_lower", "group_upper")}
    return (*_on_all(optimize), *_on_domains(optimize), *_on_groups(optimize, bound_groups))


def held_by(binding: Sequence[Binding], *, tasks: bool) -> dict[str, str]:
    """Return the constraint that holds each domain, or each task, in words."""
    kinds = ("pareto",) if tasks else ("lower", "upper")
    return {holder(one): of_run_elsewhere(in_words(one)) for one in binding if one.kind in kinds}


def of_run_elsewhere(text: str) -> str:
    """Return what a decision says with the name of what it was compared with: not mixture 0, as in the loop."""
    return re.sub(r"\b([Tt]he) prior\b(?!')", r"\1 current mixture", text)


def _on_all(optimize: OptimizeParameters) -> Iterator[str]:
    yield (f"No domain is read more than {optimize.max_epochs:g} times by the end of the chunk (optimize.max_epochs).")
    if optimize.pareto:
        yield "No task may do worse than if the current mixture were kept (optimize.pareto)."
    if optimize.max_change is not None:
        yield f"No weight moves by more than {optimize.max_change:g} (optimize.max_change)."
    if optimize.min_weight > 0 or optimize.max_weight < 1:
        yield (
            f"Every weight is from {optimize.min_weight:g} to {optimize.max_weight:g} (optimize.min_weight, "
            "optimize.max_weight)."
        )


def _on_domains(optimize: OptimizeParameters) -> Iterator[str]:
    for domain, limits in optimize.bounds.items():
        yield f"'{domain}' is from {limits.min:g} to {limits.max:g} (optimize.bounds.{domain})."
    for domain, weight in optimize.pinned.items():
        value = "its current weight" if weight == "current" else f"{weight:g}"
        yield f"'{domain}' is kept at {value} (optimize.pinned.{domain})."


def _on_groups(optimize: OptimizeParameters, bound: dict[str, str]) -> Iterator[str]:
    for name, group in optimize.groups.items():
        binds = f"; it binds: {bound[name]}" if name in bound else ""
        yield (
            f"The group '{name}' ({quoted(group.domains)}) together is from {group.min:g} to {group.max:g} "
            f"(optimize.groups.{name}){binds}."
        )
