"""Reports to lay out: one as a team would get it, and ways to change it."""

from dataclasses import replace

import numpy as np

from tikmix_pipeline.mixture.records import MixtureRecord
from tikmix_pipeline.report.remix_report import Cell, Cost, DomainRow, ExportRow, RemixReport, TaskRow

_DOMAINS = {
    # name: current, recommended, without constraints, tokens of its data, read so far, what holds it
    "web": (0.52, 0.41, 0.33, 1.4e12, 310e9, "at least 0.41: moves by 0.11 at most (optimize.max_change)"),
    "code": (0.18, 0.25, 0.29, 260e9, 108e9, ""),
    "math": (0.04, 0.09, 0.14, 14e9, 24e9, "at most 0.09, all its text allows (optimize.max_epochs)"),
    "books": (0.10, 0.11, 0.12, 48e9, 60e9, ""),
    "papers": (0.09, 0.09, 0.08, 70e9, 54e9, ""),
    "forums": (0.07, 0.05, 0.04, 90e9, 42e9, ""),
}
_TASKS = {
    # name: gain, standard error, gain without constraints, rank stability, what holds it
    "mmlu": (0.0121, 0.0038, 0.0150, 0.94, ""),
    "arc": (0.0064, 0.0021, 0.0071, 0.91, ""),
    "hellaswag": (-0.0012, 0.0019, -0.0051, 0.78, "may not do worse than under the prior (optimize.pareto)"),
    "gsm8k": (0.0310, 0.0060, 0.0520, 0.96, ""),
    "humaneval": (0.0220, 0.0040, 0.0330, 0.97, ""),
    "winogrande": (0.0011, 0.0017, -0.0008, 0.55, ""),
    "triviaqa": (0.0043, 0.0024, 0.0040, 0.83, ""),
    "piqa": (0.0052, None, 0.0060, None, ""),
}
CHUNK = 10_000_000_000


def domain(name="web", current=0.5, recommended=0.5, **changes):
    row = DomainRow(
        name=name,
        current=current,
        recommended=recommended,
        unconstrained=recommended,
        available_tokens=1e12,
        consumed_tokens=2e11,
        chunk_tokens=recommended * CHUNK,
        epochs=0.2 + recommended * CHUNK / 1e12,
        max_epochs=4.0,
        held_by="",
        size_source="counted",
    )
    return replace(row, **changes)


def mixture(number, weights):
    return MixtureRecord(
        round=number,
        strategy="direct",
        chunk_tokens=1000,
        weights=weights,
        tokens={name: round(1000 * weight) for name, weight in weights.items()},
        epochs=weights,
    )


def task(name="mmlu", gain=0.012, stderr=0.004, **changes):
    row = TaskRow(
        name=name,
        gain=gain,
        stderr=stderr,
        unconstrained_gain=gain,
        best_domains=("code", "math"),
        worst_domains=("web",),
        rank_stability=0.9,
        tokens=500,
        held_by="",
    )
    return replace(row, **changes)


def team_report(**changes):
    """What a team that trains 1.3 B parameters would get."""
    domains = tuple(
        domain(
            name,
            current,
            recommended,
            unconstrained=unconstrained,
            available_tokens=available,
            consumed_tokens=consumed,
            epochs=(consumed + recommended * CHUNK) / available,
            held_by=held_by,
            size_source="given" if available > 1e11 else "estimated from a sample",
        )
        for name, (current, recommended, unconstrained, available, consumed, held_by) in _DOMAINS.items()
    )
    tasks = tuple(
        task(name, gain, stderr, unconstrained_gain=free, rank_stability=stability, held_by=held_by)
        for name, (gain, stderr, free, stability, held_by) in _TASKS.items()
    )
    report = RemixReport(
        experiment="team-1b",
        round=3,
        checkpoint="step-60000",
        model="LlamaForCausalLM",
        parameters=1_300_000_000,
        curvature="K-FAC, damped by 0.1 of the mean eigenvalue",
        tokens_per_domain=4_194_304,
        chunk_tokens=CHUNK,
        seed=0,
        version="0.1.0",
        domains=domains,
        tasks=tasks,
        cells=cells(tasks, domains),
        effects=cells(tasks, domains),
        deciding=cells(tasks, domains, seed=1),
        decided_on="Decided on the mean of the last 4 rounds.",
        rank_stability=0.85,
        notes=("No domain helps hellaswag: its gain counts by the smallest harm.",),
        constraints=(
            "No domain is read more than 4 times (optimize.max_epochs).",
            "No weight moves by more than 0.11 in a round (optimize.max_change).",
            "No task may do worse than under the prior (optimize.pareto).",
        ),
        unconstrained_differs=True,
        exports=(
            ExportRow(
                "megatron", ("megatron.txt", "megatron.json"), "Relaunch with the new list.", ("Weights of tokens.",)
            ),
            ExportRow("levanter", ("levanter.yaml",), "Relaunch from the checkpoint: stages switch by themselves.", ()),
        ),
        cost=Cost(tokens=29e6, flops=6.8e17, chunk_flops=7.8e19),
        strategy="direct optimisation of influence (TiKMiX-D)",
    )
    return replace(report, **changes)


def cells(tasks, domains, seed=0):
    """Influence of mixed size, some of it within its error, some errors unknown."""
    generator = np.random.default_rng(seed)
    return tuple(
        Cell(task.name, domain.name, float(generator.normal() * scale), None if task.stderr is None else 0.3 * scale)
        for task, scale in zip(tasks, np.geomspace(1e-3, 1, len(tasks)).tolist(), strict=True)
        for domain in domains
    )


def large_report(domain_count=50, task_count=20):
    """As many domains and tasks as a report has to hold."""
    generator = np.random.default_rng(1)
    current = generator.dirichlet(np.ones(domain_count))
    recommended = generator.dirichlet(200 * current)
    domains = tuple(domain(f"domain-{k:02d}", float(current[k]), float(recommended[k])) for k in range(domain_count))
    tasks = tuple(
        task(f"benchmark-{t:02d}", float(generator.normal(0.004, 0.005)), 0.003, rank_stability=0.6 + 0.02 * t)
        for t in range(task_count)
    )
    effects = cells(tasks, domains)
    return team_report(domains=domains, tasks=tasks, cells=effects, effects=effects, deciding=effects)
