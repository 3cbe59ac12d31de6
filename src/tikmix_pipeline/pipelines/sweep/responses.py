"""Nodes of the `sweep` pipeline that draw candidates and measure a response of each; lower is better."""

from collections.abc import Mapping
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
    from tikmix_pipeline.mixture.records import DecisionRecord, TokenBudget
    from tikmix_pipeline.mixture.sweep.design import draw_candidates as draw

    ratios, design = draw(DecisionRecord.from_json(decision), TokenBudget.from_json(stock), optimize, sweep, seed=seed)
    return ratios, design.to_json()


@step(_relevant_to_samples)
def sample_influence(
    ratios: Table, sweep: SweepParameters, tikmix: TikmixParameters, seed: int, *parts: Table
) -> Table:
    """Take each candidate's influence from the parts that are measured already; no pass through the model.

    Args:
        parts: of the rounds so far: `part_influence`.
    """
    from tikmix_pipeline.mixture.sweep.sampled import sampled_responses

    return sampled_responses(ratios, parts, tokens=sweep.tokens, averaging=tikmix, seed=seed)


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
    from tikmix_pipeline.mixture.sweep.sampled import exact_beside_sampled

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
    return exact_beside_sampled(
        found.tasks, found.influence_TK.T, found.stderr_TK.T, ratios, parts, tokens=sweep.tokens, seed=seed
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
    from tikmix_pipeline.mixture.sweep.responses import run_table

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
    return run_table(losses, [name.removeprefix("query/") for name in texts]), report


@step(_relevant_to_tables)
def read_tables(root: Path, sweep: SweepParameters) -> tuple[Table, ...]:
    """Read a user's mixtures and scores, and those of the test if there are any."""
    from tikmix_pipeline.mixture.sweep.tables import read_sweep_tables

    return read_sweep_tables(root, sweep.table)
