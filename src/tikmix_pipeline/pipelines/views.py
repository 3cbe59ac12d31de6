"""What several stages derive alike: values of their views, from the parameters of a run, and keys of kept work."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from tikmix_pipeline.lm.schedule import Schedule, horizon_after
from tikmix_pipeline.parameters.base import Facet, View, unrecorded
from tikmix_pipeline.parameters.measurement import ReadingParameters, ScoringParameters, heldout_target
from tikmix_pipeline.parameters.training import (
    EngineParameters,
    LoadParameters,
    SecondMomentParameters,
    StepParameters,
)
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.code import code_of

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.cost_records import BranchCostRecord


class TitledView(View):
    """What a figure says of its origin."""

    experiment: str = unrecorded()
    """As the folder is called that the figure stands in."""
    number: int | None
    """Of the round; None for a figure of all of them."""

    @property
    def origin(self) -> str:
        """Experiment and round, for a title."""
        return self.experiment if self.number is None else f"{self.experiment} · round {self.number}"


class MixtureBranchesView(View):
    """What a branch under each of several mixtures depends on."""

    model: LoadParameters
    train: StepParameters
    influence: ScoringParameters
    steps: int
    share: float
    """Of every domain's windows: what `steps` are of a chunk's, so that a short branch repeats as much as a chunk."""
    schedule: Schedule
    seed: int
    engine: EngineParameters = unrecorded()

    @classmethod
    def of_steps(cls, run: Run, number: int, *, steps: int, anneal: bool = True) -> Self:
        """Return the view of branches of so many steps from the end of round `number`."""
        share = min(1.0, steps / run.parameters.train.steps_per_chunk)
        schedule = branch_schedule(run, number, steps=steps, anneal=anneal)
        return cls.of(run.parameters, steps=steps, share=share, schedule=schedule)


def measured_train(run: Run, facet: type[Facet], *, needs_optimizer: bool) -> Facet:
    """Return what a measurement reads of `train`: of AdamW's divisors only where they are needed."""
    train = run.parameters.train.narrowed(facet)
    return train if needs_optimizer else train.without(SecondMomentParameters)


def chunk_schedule(run: Run, number: int) -> Schedule:
    """Return what of the learning-rate schedule counts in the chunk of round `number`.

    Raises:
        TikmixError: warm-up and decay together are longer than the run.
    """
    schedule = Schedule.of(run.parameters.train, max(run.parameters.tikmix.total_rounds, number + 1))
    return schedule.within(number * schedule.chunk_steps, (number + 1) * schedule.chunk_steps)


def branch_schedule(run: Run, number: int, *, steps: int, anneal: bool) -> Schedule:
    """Return the schedule of a branch from the end of round `number`, as it would be were one more round to come.

    With `anneal` the rate falls to zero over the branch's optimiser steps.
    """
    schedule = Schedule.of(run.parameters.train, max(run.parameters.tikmix.total_rounds, number + 2))
    first = (number + 1) * schedule.chunk_steps
    return (schedule.annealed(first, steps) if anneal else schedule).within(first, first + steps)


def branch_horizon(run: Run, number: int, *, steps: int, anneal: bool) -> float:
    """Return the sum of the learning rates of a branch from the end of round `number`."""
    schedule = branch_schedule(run, number, steps=steps, anneal=anneal)
    first = (number + 1) * run.parameters.train.steps_per_chunk
    return run.parameters.train.learning_rate * schedule.rate_sum(first, first + steps)


def horizon(run: Run, number: int) -> float:
    """Return the sum of the learning rates of the chunk that follows round `number`."""
    return horizon_after(run.parameters.train, run.parameters.tikmix.total_rounds, number)


def remaining_tokens(run: Run, number: int) -> int | None:
    """Return the training tokens that are planned after round `number`, one chunk at least; None without a plan."""
    planned = run.parameters.tikmix.planned_rounds
    return None if planned is None else max(1, planned - number - 1) * run.parameters.train.tokens_per_chunk


def decision_items(run: Run) -> int | None:
    """Return the query items per task that TiKMiX-D has read by its last decision that is trained on; None for all.

    Whoever is compared with it decides on as many.
    """
    per_round, tikmix = run.parameters.influence.items_per_task, run.parameters.tikmix
    decisions = min(tikmix.total_rounds - 1, tikmix.decisions or tikmix.total_rounds)
    return None if per_round is None else per_round * max(1, decisions)


def tables_by_kind(measured: "Sequence[pd.DataFrame]") -> "tuple[list[pd.DataFrame], list[pd.DataFrame]]":
    """Return the tables of influence on tasks, and those of products between domains."""
    products = [table for table in measured if "text" in table]
    return [table for table in measured if "text" not in table and "part" not in table], products


def branch_key() -> str:
    """Return what names all code that a branch and its scores depend on, and the libraries that it runs on."""
    from tikmix_pipeline.lm.branch_pool import train_and_score

    return code_of(train_and_score).key


def gradient_key(model: LoadParameters, influence: ReadingParameters) -> str:
    """Return what a chunk's gradient depends on besides weights and text: code, libraries, kernel and precision."""
    from tikmix_pipeline.influence.gradients import mean_gradient
    from tikmix_pipeline.lm.model import load_model

    return " ".join([code_of(mean_gradient).key, code_of(load_model).key, model.attention, influence.precision])


def losses_of_branches(
    view: MixtureBranchesView,
    ratios: "pd.DataFrame",
    checkpoint: "Checkpoint",
    corpus: "TokenShards",
    work: "WorkFolder",
    *,
    items: int | None,
    workers: int | Literal["auto"],
    heldout_windows: int = 0,
) -> "tuple[pd.DataFrame, BranchCostRecord]":
    """Train a branch under every mixture that has none yet.

    Returns:
        The losses on so many items of the query half of every target, and on so many windows of every domain's held-out
        text, and what all branches took, whenever they were trained.
    """
    from tikmix_pipeline.influence.counterfactual import scored_texts
    from tikmix_pipeline.lm.branch_pool import Branch, BranchSetting, cost_of_branches, losses_by_text, run_branches
    from tikmix_pipeline.lm.evaluation import text_of_heldout
    from tikmix_pipeline.mixture.sweep.responses import run_table

    setting = BranchSetting(
        checkpoint=checkpoint.folder,
        shards=corpus.folder,
        steps=view.steps,
        model=view.model,
        train=view.train,
        schedule=view.schedule,
        seed=view.seed,
        share=view.share,
    )
    texts = scored_texts(corpus, view.influence, items=items, context=view.train.context, halves=("query",))
    for domain in corpus.domains if heldout_windows else []:
        heldout = text_of_heldout(corpus, domain, context=view.train.context, limit=heldout_windows)
        texts.setdefault(f"query/{heldout_target(domain)}", heldout.batches)
    results = run_branches(
        setting,
        [Branch(str(run), weights) for run, weights in ratios.set_index("run").to_dict("index").items()],
        texts,
        folder=work.begin(),
        key=branch_key(),
        workers=workers,
        engine=view.engine,
    )
    losses = run_table(losses_by_text(results, list(texts)), [name.removeprefix("query/") for name in texts])
    return losses, cost_of_branches(setting, results, texts).to_record()
