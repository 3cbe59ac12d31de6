"""Nodes that measure how a checkpoint responds, from a few branches of training (`optimize.branches`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.base import View, unrecorded
from tikmix_pipeline.parameters.decision import AveragingParameters, DirectParameters, ResponseBranchParameters
from tikmix_pipeline.parameters.measurement import ScoringParameters
from tikmix_pipeline.parameters.training import EngineParameters, LoadParameters, StepParameters
from tikmix_pipeline.pipelines.optimize.nodes import tables_by_kind
from tikmix_pipeline.pipelines.views import branch_key

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.cost_records import BranchCostRecord


class BranchesView(View):
    """What the mixtures of the branches depend on."""

    optimize: DirectParameters
    tikmix: AveragingParameters
    count: int
    seed: int


class ResponseView(View):
    """What the losses of the branches depend on besides their mixtures."""

    model: LoadParameters
    train: StepParameters
    influence: ScoringParameters
    optimize: ResponseBranchParameters
    steps: int
    schedule: Schedule
    seed: int
    engine: EngineParameters = unrecorded()


def choose_branches(
    view: BranchesView, budget: TokenBudget, prior: MixtureRecord, *measured: pd.DataFrame
) -> pd.DataFrame:
    """Choose what branches are trained under: the reference, what would be decided without them, and more around."""
    from tikmix_pipeline.mixture.direct import decide_direct
    from tikmix_pipeline.mixture.response_branches import branch_mixtures
    from tikmix_pipeline.mixture.sweep.responses import run_table

    in_share = {name: one for name, one in view.optimize.guardrails.items() if one is None or one.unit == "share"}
    optimize = view.optimize.model_copy(update={"guardrails": in_share})  # nobody knows of nats yet
    decision = decide_direct(budget, prior, optimize, view.tikmix, *tables_by_kind(measured))
    bounds = budget.step_bounds(view.optimize)
    mixtures = branch_mixtures(decision.reference_K, decision.weights_K, bounds, count=view.count, seed=view.seed)
    return run_table({name: weights_K.tolist() for name, weights_K in mixtures.items()}, budget.domains)


def train_response_branches(
    view: ResponseView, ratios: pd.DataFrame, checkpoint: Checkpoint, corpus: TokenShards, work: WorkFolder
) -> tuple[pd.DataFrame, BranchCostRecord]:
    """Train a branch under every mixture that has none yet; return losses on the query halves, and what they took."""
    from tikmix_pipeline.influence.counterfactual import scored_texts
    from tikmix_pipeline.lm.branch_pool import Branch, BranchSetting, cost_of_branches, losses_by_text, run_branches
    from tikmix_pipeline.mixture.sweep.responses import run_table

    setting = BranchSetting(
        checkpoint=checkpoint.folder,
        shards=corpus.folder,
        steps=view.steps,
        model=view.model,
        train=view.train,
        schedule=view.schedule,
        seed=view.seed,
    )
    items, context = view.optimize.branch_items, view.train.context
    texts = scored_texts(corpus, view.influence, items=items, context=context, halves=("query",))
    results = run_branches(
        setting,
        [Branch(str(run), weights) for run, weights in ratios.set_index("run").to_dict("index").items()],
        texts,
        folder=work.begin(),
        key=branch_key(),
        workers=view.optimize.workers,
        engine=view.engine,
    )
    losses = run_table(losses_by_text(results, list(texts)), [name.removeprefix("query/") for name in texts])
    return losses, cost_of_branches(setting, results, texts).to_record()
