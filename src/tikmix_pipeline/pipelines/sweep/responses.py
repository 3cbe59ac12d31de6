"""Nodes of the `sweep` pipeline that draw candidates and measure a response of each; lower is better."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.paths import WorkFolder
from tikmix_pipeline.parameters import (
    EngineParameters,
    InfluenceParameters,
    ModelParameters,
    OptimizeParameters,
    RunParameters,
    SweepParameters,
    TikmixParameters,
    TrainParameters,
)
from tikmix_pipeline.parameters.decision import OF_BOUNDS
from tikmix_pipeline.pipelines.branches import branch_code, branch_rates, branch_schedule, relevant_to_branches
from tikmix_pipeline.pipelines.measuring import curvature_at, measuring_code
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Checkpoint, Factors, Table, TokenShards

_LOG = logging.getLogger(__name__)

_OF_DESIGN = {"candidates", "design", "low", "high", "min_strength", "max_strength", "max_ratio", "response"}
_OF_BRANCHES = {"branch_tokens", "anneal", "items"}
_OF_GRADIENTS = {
    *(
        "tokens",
        "max_tokens",
        "context",
        "items_per_task",
        "task_loss",
        "targets",
        "tasks",
        "micro_batches",
        "precision",
    )
}
_OF_CURVATURE = {"inverse", "damping", "damping_unit"}


def _relevant_to_candidates(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "sweep": parameters.sweep.model_dump(mode="json", include=_OF_DESIGN),
        "optimize": parameters.optimize.model_dump(mode="json", include=OF_BOUNDS),
        "seed": parameters.seed,
    }


def _relevant_to_samples(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "sweep": parameters.sweep.model_dump(mode="json", include={"tokens"}),
        "tikmix": parameters.tikmix.model_dump(mode="json", include={"memory"}),
        "seed": parameters.seed,
    }


def _relevant_to_own_tokens(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    from tikmix_pipeline.lm.schedule import horizon_after

    del root
    return {
        "sweep": parameters.sweep.model_dump(mode="json", include={"tokens", "exact"}),
        "influence": parameters.influence.model_dump(mode="json", include=_OF_GRADIENTS | _OF_CURVATURE),
        "train": parameters.train.model_dump(mode="json", include={"context", "beta2", "epsilon"}),
        "horizon": horizon_after(parameters.train, parameters.tikmix.rounds, round_number),
        "seed": parameters.seed,
    }


def _relevant_to_branches(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del root
    train, sweep, rounds = parameters.train, parameters.sweep, parameters.tikmix.rounds
    rates = branch_rates(train, steps=sweep.steps(train), anneal=sweep.anneal, rounds=rounds, number=round_number)
    own = parameters.sweep.model_dump(mode="json", include=_OF_BRANCHES)
    return relevant_to_branches(parameters, rates) | {"sweep": own}


def _relevant_to_tables(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    from tikmix_pipeline.files import sha256_of_file

    del round_number
    table = parameters.sweep.table.model_dump(mode="json")
    files = [root / path for key, path in table.items() if path and key.endswith(("ratios", "metrics"))]
    return {"table": table, "files": [sha256_of_file(file) if file.is_file() else None for file in files]}


@step(_relevant_to_candidates)
def draw_candidates(
    decision: Mapping[str, Any],
    stock: Mapping[str, Any],
    optimize: OptimizeParameters,
    sweep: SweepParameters,
    seed: int,
) -> tuple[Table, dict[str, Any]]:
    """Draw candidate mixtures, around D's or around the prior."""
    from tikmix_pipeline.mixture.simplex import check_mixture
    from tikmix_pipeline.mixture.stock import Stock
    from tikmix_pipeline.mixture.sweep.design import dirichlet, latin_hypercube
    from tikmix_pipeline.mixture.sweep.regression_data import REFERENCE

    run = Stock.from_dict(stock)
    domains, bounds = run.domains, run.bounds(optimize)
    if sweep.design == "latin_hypercube":
        direct_K = check_mixture(decision["weights"], domains, "D's mixture")
        design = latin_hypercube(
            direct_K, count=sweep.candidates, low=sweep.low, high=sweep.high, bounds=bounds, seed=seed
        )
    else:
        design = dirichlet(
            check_mixture(decision["prior"], domains, "the prior mixture"),
            count=sweep.candidates,
            min_strength=sweep.min_strength,
            max_strength=sweep.max_strength,
            max_ratio=sweep.max_ratio,
            bounds=bounds,
            seed=seed,
        )
    for note in design.notes:
        _LOG.warning("%s", note)
    rows = {f"c{number:04d}": weights_K for number, weights_K in enumerate(design.weights_NK.tolist())}
    if sweep.response == "lookahead":
        # influence is known of any mixture; what a branch under the prior or D's mixture would do is measured as well
        beside = {REFERENCE: decision["reference"], "direct": decision["weights"]}
        for name, weights in beside.items():
            known = [weights[domain] for domain in domains]
            if known not in rows.values():
                rows[name] = known
    low_K, high_K = design.box
    box = {
        "low": dict(zip(domains, low_K.tolist(), strict=True)),
        "high": dict(zip(domains, high_K.tolist(), strict=True)),
    }
    return _frame(rows, domains), {"box": box, "acceptance": design.acceptance, "notes": list(design.notes)}


@step(_relevant_to_samples)
def sample_influence(
    ratios: Table, sweep: SweepParameters, tikmix: TikmixParameters, seed: int, *parts: Table
) -> Table:
    """Take each candidate's influence from the parts that are measured already; no pass through the model.

    Args:
        parts: of the rounds so far: `part_influence`.
    """
    from tikmix_pipeline.mixture.averaging import in_todays_units
    from tikmix_pipeline.mixture.sweep.sampled import sampled_influence, whole_influence

    domains = list(ratios.columns[1:])
    tables = parts[-1:] if tikmix.memory == "none" else parts
    tasks = list(dict.fromkeys(parts[-1]["task"]))
    found = [_by_part(table, tasks, domains) for table in tables]
    total_NT = sampled_influence(
        ratios[domains].to_numpy(),
        [S_TKL for S_TKL, _ in found],
        [tokens_KL for _, tokens_KL in found],
        tokens=sweep.tokens,
        factors_RT=in_todays_units([whole_influence(*one) for one in found]),
        seed=seed,
    )
    return _frame(dict(zip(ratios["run"], (-total_NT).tolist(), strict=True)), tasks)


def _by_part(table: Table, tasks: Sequence[str], domains: Sequence[str]) -> tuple[Any, Any]:
    """Return the influence (T, K, L) of every part of a table, and the tokens (K, L) of each."""
    wide = table.set_index(["task", "domain", "part"]).unstack("part")
    rows = wide.loc[[(task, domain) for task in tasks for domain in domains]]
    shape = len(tasks), len(domains), -1
    influence_TKL, tokens_TKL = (rows[name].to_numpy(dtype=float).reshape(shape) for name in ("influence", "tokens"))
    return influence_TKL, tokens_TKL[0]


@step(_relevant_to_own_tokens)
def measure_own_tokens(
    ratios: Table,
    parts: Table,
    checkpoint: Checkpoint,
    mixture: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    sweep: SweepParameters,
    rounds: int,
    seed: int,
    work: WorkFolder,
    factors: Factors | None = None,
) -> Table:
    """Measure some candidates on tokens of their own, and set that beside what the measured parts say of them."""
    from tikmix_pipeline.influence.collect import collect_gradients, measurement_key
    from tikmix_pipeline.influence.group import group_influence
    from tikmix_pipeline.influence.parts import deal_sets
    from tikmix_pipeline.influence.samples import MeasuredText
    from tikmix_pipeline.influence.store import GradientStore
    from tikmix_pipeline.lm.model import resolve_device
    from tikmix_pipeline.lm.schedule import horizon_after

    text = MeasuredText.open(checkpoint, corpus, model=model, train=train, influence=influence, seed=seed)
    chosen = ratios.iloc[: sweep.exact].set_index("run")
    tokens = sweep.tokens or int(parts.drop_duplicates(["domain", "part"])["tokens"].sum())
    samples = {
        run: text.drawn_by(weights, tokens, seed=seed + number)
        for number, (run, weights) in enumerate(chosen.to_dict("index").items())
    }
    store = GradientStore(work.begin())
    collect_gradients(
        text.model,
        {"task": text.target_parts(), "domain": deal_sets("candidate", samples, influence.micro_batches)},
        store,
        key=measurement_key(text.model, measuring_code(model, influence)),
    )
    horizon = horizon_after(train, rounds, mixture["round"])
    found = group_influence(
        store,
        curvature_at(checkpoint, text.model, train, influence, factors, horizon),
        memory_megabytes=influence.memory_megabytes,
        device=resolve_device(influence.device),
    )
    return _beside_parts(found, chosen, ratios, parts, sweep, seed)


def _beside_parts(found: Any, chosen: Table, ratios: Table, parts: Table, sweep: SweepParameters, seed: int) -> Table:
    """Tabulate the exact influence of candidates beside that of sampled parts, and the additive `S w`."""
    import numpy as np
    import pandas as pd

    from tikmix_pipeline.mixture.sweep.sampled import mean_correlation, sampled_influence, whole_influence

    domains = list(chosen.columns)
    S_TKL, tokens_KL = _by_part(parts, found.tasks, domains)
    # all candidates are drawn for, so that these few have the draws that they have in `metrics`
    sampled_NT = sampled_influence(
        ratios[domains].to_numpy(),
        [S_TKL],
        [tokens_KL],
        tokens=sweep.tokens,
        factors_RT=np.ones((1, len(found.tasks))),
        seed=seed,
    )[: len(chosen)]
    additive_NT = chosen.to_numpy() @ whole_influence(S_TKL, tokens_KL).T
    exact_NT = found.influence_TK.T
    _LOG.info(
        "Influence of %d candidates on tokens of their own: %.2f times that of their sampled parts; off the additive "
        "S w by %.2f times as much as these are; correlation over candidates with S w %.2f, that of the parts %.2f",
        len(chosen),
        (exact_NT.mean(axis=0) / sampled_NT.mean(axis=0)).mean(),
        ((exact_NT - additive_NT).std(axis=0) / (sampled_NT - additive_NT).std(axis=0)).mean(),
        mean_correlation(exact_NT, additive_NT),
        mean_correlation(sampled_NT, additive_NT),
    )
    return pd.DataFrame(
        {
            "run": np.repeat(chosen.index.to_numpy(), len(found.tasks)),
            "task": np.tile(found.tasks, len(chosen)),
            "exact": exact_NT.ravel(),
            "exact_stderr": found.stderr_TK.T.ravel(),
            "sampled": sampled_NT.ravel(),
            "additive": additive_NT.ravel(),
        }
    )


@step(_relevant_to_branches)
def train_candidates(
    ratios: Table,
    checkpoint: Checkpoint,
    mixture: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    sweep: SweepParameters,
    rounds: int,
    seed: int,
    engine: EngineParameters,
    work: WorkFolder,
) -> tuple[Table, dict[str, Any]]:
    """Train a branch under every candidate that has none yet.

    Returns:
        The losses on the query half of every target, and what all branches took, whenever they were trained.
    """
    from tikmix_pipeline.influence.counterfactual import scored_texts
    from tikmix_pipeline.lm.branch_cost import cost_of_branches
    from tikmix_pipeline.lm.branch_pool import Branch, BranchSetting, run_branches
    from tikmix_pipeline.lm.cost import cost_report

    steps = sweep.steps(train)
    setting = BranchSetting(
        checkpoint=checkpoint.folder,
        shards=corpus.folder,
        steps=steps,
        model=model,
        train=train,
        schedule=branch_schedule(train, steps=steps, anneal=sweep.anneal, rounds=rounds, number=mixture["round"]),
        seed=seed,
    )
    texts = scored_texts(corpus, influence, items=sweep.items, context=train.context, halves=("query",))
    results = run_branches(
        setting,
        [Branch(str(run), weights) for run, weights in ratios.set_index("run").to_dict("index").items()],
        texts,
        folder=work.begin(),
        key=branch_code(),
        workers=sweep.workers,
        engine=engine,
    )
    # by name: losses that were read back stand in another order than those of a new branch
    losses = {
        one.branch.name: [one.losses[name].nats / one.losses[name].tokens for name in texts]
        for one in results
        if one.losses
    }
    cost = cost_of_branches(setting, results, texts)
    report = {"branches": cost.trained, "cost": cost_report(training=cost.training, scoring=cost.scoring)}
    return _frame(losses, [name.removeprefix("query/") for name in texts]), report


@step(_relevant_to_tables)
def read_tables(root: Path, sweep: SweepParameters) -> tuple[Table, ...]:
    """Read a user's mixtures and scores, and those of the test if there are any."""
    from tikmix_pipeline.mixture.sweep.tables import aligned, metrics_frame, ratios_frame, read_responses

    table = sweep.table
    affixes = {
        "domain_prefix": table.domain_prefix,
        "metric_prefix": table.metric_prefix,
        "metric_suffix": table.metric_suffix,
    }
    pairs = [(table.ratios, table.metrics), (table.test_ratios, table.test_metrics)]
    found = [
        read_responses(root / ratios, root / metrics, **affixes) for ratios, metrics in pairs if ratios and metrics
    ]
    found[1:] = [aligned(test, found[0], "sweep.table") for test in found[1:]]
    return tuple(frame for one in found for frame in (ratios_frame(one), metrics_frame(one)))


def _frame(rows: Mapping[str, Sequence[float]], columns: Sequence[str]) -> Table:
    """Return a table with a run's id before its numbers."""
    import pandas as pd

    table = pd.DataFrame.from_dict(dict(rows), orient="index", columns=list(columns))
    return table.rename_axis("run").reset_index()
