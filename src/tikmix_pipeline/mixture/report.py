"""A decision for human readers: rows for tables, lines for logs."""

from tikmix_pipeline.mixture.decision import Binding, Decision


def domain_rows(decision: Decision) -> list[dict[str, str | float]]:
    """Return one row per domain: its weight, the prior's, and the constraint that holds it, in words."""
    held = {binding.name: in_words(binding) for binding in decision.binding if binding.kind != "pareto"}
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


def in_words(binding: Binding) -> str:
    """Say which constraint binds and which parameter would loosen it."""
    if binding.kind == "pareto":
        return "may not do worse than under the prior (optimize.pareto)"
    side = "at least" if binding.kind == "lower" else "at most"
    cause = {"repetition": f", all its text allows ({binding.parameter})", "user": f" ({binding.parameter})"}
    return f"{side} {binding.bound:.6g}{cause.get(binding.reason, '')}"


def summary_lines(decision: Decision) -> list[str]:
    """Return the decision as lines of text: domains by falling weight, tasks, and notes."""
    name_width = max(len(name) for name in (*decision.domains, *decision.tasks, "domain"))
    lines = [f"{'domain':<{name_width}}   prior  weight  change"]
    for row in sorted(domain_rows(decision), key=lambda row: -float(row["weight"])):
        figures = f"{row['prior']:7.4f} {row['weight']:7.4f} {row['change']:+7.4f}"
        lines.append(f"{row['domain']:<{name_width}} {figures}  {row['held_by']}".rstrip())
    lines.append(f"{'task':<{name_width}}  expected gain over the prior, share of the best possible")
    for row in task_rows(decision):
        figures = f"{row['expected_gain']:+13.4g} {row['normalised_gain']:7.3f}"
        lines.append(f"{row['task']:<{name_width}} {figures}  {row['held_by']}".rstrip())
    return [*lines, *decision.notes]
