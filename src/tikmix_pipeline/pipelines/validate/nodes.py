"""Nodes of the `validate` pipeline: branches of training, what was predicted for them, and how well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tikmix_pipeline.influence.agreement import agreement_table, validation_points
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.records import MixtureRecord
from tikmix_pipeline.parameters.base import View, unrecorded
from tikmix_pipeline.parameters.measurement import OpenParameters, ScoringParameters
from tikmix_pipeline.parameters.training import (
    EngineParameters,
    LoadParameters,
    ProductParameters,
    StepParameters,
)
from tikmix_pipeline.parameters.validation import (
    AgreementParameters,
    BranchesParameters,
    HalfParameters,
    PredictionParameters,
)
from tikmix_pipeline.pipelines.views import TitledView, branch_key

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.influence.curvature.factors import Factors
    from tikmix_pipeline.influence.store import GradientStore
    from tikmix_pipeline.lm.checkpoint import Checkpoint


class BranchesView(View):
    """What the branches and their losses depend on."""

    model: LoadParameters
    train: StepParameters
    influence: ScoringParameters
    validation: BranchesParameters
    steps: int
    schedule: Schedule
    seed: int
    engine: EngineParameters = unrecorded()


class PredictionView(View):
    """What the predictions depend on besides the gradients."""

    model: LoadParameters
    train: ProductParameters
    influence: OpenParameters
    validation: PredictionParameters
    horizon: float


class ComparisonView(View):
    """What the comparison depends on, and what its table says of the branches."""

    validation: AgreementParameters
    branch_tokens: int
    chunk_tokens: int
    seed: int


class DrawingView(TitledView):
    """Which half of the tasks is drawn."""

    validation: HalfParameters


def train_branches(
    view: BranchesView, checkpoint: Checkpoint, mixture: MixtureRecord, corpus: TokenShards, work: WorkFolder
) -> pd.DataFrame:
    """Train every branch that is not there yet, and score it on both halves of every target."""
    import pandas as pd

    from tikmix_pipeline.influence.counterfactual import counterfactual_mixtures, loss_rows, scored_texts
    from tikmix_pipeline.lm.branch_pool import Branch, BranchSetting, run_branches, windows_in_reach

    own, train = view.validation, view.train
    mixtures = counterfactual_mixtures(mixture.weights, own.step)
    setting = BranchSetting(
        checkpoint=checkpoint.folder,
        shards=corpus.folder,
        steps=view.steps,
        model=view.model,
        train=train,
        schedule=view.schedule,
        seed=view.seed,
        reach=windows_in_reach(mixtures.values(), steps=view.steps, batch_size=train.batch_size),
    )
    results = run_branches(
        setting,
        [Branch(name, weights, number) for number in range(own.replicates) for name, weights in mixtures.items()],
        scored_texts(corpus, view.influence, items=own.items, context=train.context),
        folder=work.begin(),
        key=branch_key(),
        workers=own.workers,
        engine=view.engine,
    )
    return pd.DataFrame(list(loss_rows(results)))


def predict_effects(
    view: PredictionView,
    checkpoint: Checkpoint,
    mixture: MixtureRecord,
    gradients: GradientStore,
    *factors: Factors,
) -> pd.DataFrame:
    """Predict with every candidate what the branches will do; no pass through the model."""
    import pandas as pd

    from tikmix_pipeline.distributed.mesh import resolve_device
    from tikmix_pipeline.influence.counterfactual import candidate_influences, prediction_rows

    found = candidate_influences(
        view.validation.candidates,
        gradients,
        checkpoint.model(view.model).to(resolve_device(view.influence.device)),
        influence=view.influence,
        factors=factors,
        optimizer_state=checkpoint.optimizer_tensors(),
        train=view.train,
        horizon=view.horizon,
        mixture=mixture.weights,
    )
    return pd.DataFrame([row for one in found for row in prediction_rows(*one, view.validation.step)])


def compare_with_branches(
    view: ComparisonView, losses: pd.DataFrame, predictions: pd.DataFrame, mixture: MixtureRecord
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare measured gains with predicted effects, candidate by candidate; both outputs are the same rows."""
    table = agreement_table(
        losses,
        predictions,
        view.validation.candidates,
        half=view.validation.half,
        seed=view.seed,
        round_number=mixture.round,
        branch_tokens=view.branch_tokens,
        chunk_tokens=view.chunk_tokens,
    )
    return table, table


def draw_validation(
    view: DrawingView, losses: pd.DataFrame, predictions: pd.DataFrame, comparison: pd.DataFrame
) -> tuple[Figure, Figure]:
    """Draw measured gains over the best candidate's predictions, and all candidates side by side."""
    from tikmix_pipeline.report.run_figures import candidates_side_by_side, measured_over_predicted

    points, shown = validation_points(losses, predictions, comparison, half=view.validation.half)
    origin = view.origin
    return measured_over_predicted(points, shown, origin=origin), candidates_side_by_side(comparison, origin=origin)
