"""A decision for human readers: rows for tables, lines for logs."""

import numpy as np

from tikmix_pipeline.mixture.decision import Binding, Decision


def domain_rows(decision: Decision) -> list[dict[str, str | float]]:
    """Return one row per domain: its weight, the prior's, and the constraint that holds it, in words."""
    held = {b.name: in_words(b) for b in decision.binding if b.kind in {"lower", "upper"}}
    return [
        {"domain": domain, "prior": prior, "weight": weight, "change": weight - prior, "held_by": held.get(domain, "")}
        for domain, prior, weight in zip(
            decision.domains, decision.prior_K.tolist(), decision.weights_K.tolist(), strict=True
        )
    ]


def task_rows(decision: Decision) -> list[dict[str, str | float]]:
    """Return one row per task: its expected gain over the prior and its share of the best it could gain."""
    held = {binding.name: in_words(binding) for binding in decision.binding if binding.kind == "pareto"}
    return [
        {"task": task, "expected_gain": gain, "normalised_gain": share, "held_by": held.get(task, "")}
        for task, gain, share in zip(
            decision.tasks, decision.expected_gain_T.tolist(), decision.normalised_gain_T.tolist(), strict=True
        )
    ]


def holder(binding: Binding) -> str:
    """Say whom a constraint is about; a group may have a domain's name."""
    return f"group {binding.name}" if binding.kind in {"group_lower", "group_upper"} else binding.name


def in_words(binding: Binding) -> str:
    """Say which constraint binds and which parameter would loosen it."""
    if binding.kind == "pareto":
        return "may not do worse than under the prior (optimize.pareto)"
    if binding.parameter.startswith("optimize.pinned."):
        return f"pinned to {binding.bound:.6g} ({binding.parameter})"
    side = "at least" if binding.kind in {"lower", "group_lower"} else "at most"
    cause = {"repetition": ", all its text allows", "change": ", as far as it may move"}.get(binding.reason, "")
    parameter = f" ({binding.parameter})" if binding.parameter else ""
    return f"{side} {binding.bound:.6g}{cause}{parameter}"


def summary_lines(decision: Decision) -> list[str]:
    """Return the decision as lines of text: domains by falling weight, groups that bind, tasks, and notes."""
    name_width = max(len(name) for name in (*decision.domains, *decision.tasks, "domain"))
    lines = [f"{'domain':<{name_width}}   prior  weight  change"]
    for row in sorted(domain_rows(decision), key=lambda row: -float(row["weight"])):
        figures = f"{row['prior']:7.4f} {row['weight']:7.4f} {row['change']:+7.4f}"
        lines.append(f"{row['domain']:<{name_width}} {figures}  {row['held_by']}".rstrip())
    lines += [f"{holder(b)}: {in_words(b)}" for b in decision.binding if b.kind in {"group_lower", "group_upper"}]
    lines.append(f"{'task':<{name_width}}  expected gain over the prior, share of the best possible")
    for row in task_rows(decision):
        figures = f"{row['expected_gain']:+13.4g} {row['normalised_gain']:7.3f}"
        lines.append(f"{row['task']:<{name_width}} {figures}  {row['held_by']}".rstrip())
    return [*lines, cost_of_constraints(decision), *decision.notes]


def cost_of_constraints(decision: Decision) -> str:
    """Say what all constraints together cost: the objective without them, and where the weights would go."""
    cost = decision.objective - decision.unconstrained_objective
    if cost <= 0:
        return "The constraints cost nothing: no mixture would be better without them."
    moved_K = decision.unconstrained_K - decision.weights_K
    k = int(np.abs(moved_K).argmax())
    return (
        f"The constraints cost {cost:.3g} of the objective, {decision.objective:.4g} instead of "
        f"{decision.unconstrained_objective:.4g} (lower is better): without bounds and Pareto constraint "
        f"{np.abs(moved_K).sum() / 2:.1%} of the tokens would go elsewhere, most with '{decision.domains[k]}' at "
        f"{decision.unconstrained_K[k]:.4f}."
    )
