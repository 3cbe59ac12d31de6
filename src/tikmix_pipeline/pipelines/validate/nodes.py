"""Nodes of the `validate` pipeline: branches of training, what was predicted for them, and how well."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.paths import WorkFolder
from tikmix_pipeline.parameters import (
    EngineParameters,
    InfluenceParameters,
    ModelParameters,
    RunParameters,
    TrainParameters,
    ValidateParameters,
)
from tikmix_pipeline.parameters.measurement import Curvature
from tikmix_pipeline.pipelines.branches import branch_code, branch_rates, branch_schedule, relevant_to_branches
from tikmix_pipeline.pipelines.steps import Relevant, step
from tikmix_pipeline.pipelines.types import Checkpoint, Factors, Figure, GradientStore, Table, TokenShards

_OF_BRANCHES = {"step", "tokens", "anneal", "replicates", "items"}


def _relevant_to_branches(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del root
    rates = _branch_rates(parameters.train, parameters.validation, parameters.tikmix.rounds, round_number)
    own = parameters.validation.model_dump(mode="json", include=_OF_BRANCHES)
    return relevant_to_branches(parameters, rates) | {"validate": own}


def _relevant_to_factors(kind: Curvature) -> Relevant:
    def relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
        del round_number, root
        return {
            "kind": kind,
            "groups": parameters.validation.groups_of(kind, parameters.influence),
            "influence": parameters.influence.model_dump(
                mode="json", include={"fisher", "factor_tokens", "context", "precision"}
            ),
            "train": {"context": parameters.train.context},
            "seed": parameters.seed,
        }

    return relevant


def _relevant_to_predictions(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del root
    rates = _branch_rates(parameters.train, parameters.validation, parameters.tikmix.rounds, round_number)
    return {
        "validate": parameters.validation.model_dump(mode="json", include={"step", "candidates"}),
        "influence": parameters.influence.model_dump(mode="json", include={"fisher", "groups"}),
        "train": parameters.train.model_dump(mode="json", include={"beta2", "epsilon"}),
        "horizon": rates["sum"],
    }


def _relevant_to_comparison(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "validate": parameters.validation.model_dump(mode="json", include={"half", "candidates", "tokens"}),
        "train": parameters.train.model_dump(mode="json", include={"chunk_tokens", "batch_size", "context"}),
        "seed": parameters.seed,
    }


def _relevant_to_drawing(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {"validate": parameters.validation.model_dump(mode="json", include={"half"})}


def _branch_rates(train: TrainParameters, validate: ValidateParameters, rounds: int, number: int) -> dict[str, float]:
    return branch_rates(train, steps=validate.steps(train), anneal=validate.anneal, rounds=rounds, number=number)


@step(_relevant_to_branches)
def train_branches(
    checkpoint: Checkpoint,
    mixture: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    validate: ValidateParameters,
    rounds: int,
    seed: int,
    engine: EngineParameters,
    work: WorkFolder,
) -> Table:
    """Train every branch that is not there yet, and score it on both halves of every target."""
    from tikmix_pipeline.influence.counterfactual import counterfactual_mixtures, loss_rows, scored_texts
    from tikmix_pipeline.lm.branch import windows_in_reach
    from tikmix_pipeline.lm.branch_pool import Branch, BranchSetting, run_branches

    mixtures = counterfactual_mixtures(mixture["weights"], validate.step)
    steps = validate.steps(train)
    setting = BranchSetting(
        checkpoint=checkpoint.folder,
        shards=corpus.folder,
        steps=steps,
        model=model,
        train=train,
        schedule=branch_schedule(train, steps=steps, anneal=validate.anneal, rounds=rounds, number=mixture["round"]),
        seed=seed,
        reach=windows_in_reach(mixtures.values(), steps=steps, batch_size=train.batch_size),
    )
    results = run_branches(
        setting,
        [Branch(name, w, replicate) for replicate in range(validate.replicates) for name, w in mixtures.items()],
        scored_texts(corpus, influence, items=validate.items, context=train.context),
        folder=work.begin(),
        key=branch_code(),
        workers=validate.workers,
        engine=engine,
    )
    return _as_table(loss_rows(results))


def _fit(
    kind: Any,
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    validate: ValidateParameters,
    seed: int,
    work: WorkFolder,
) -> Callable[[Path], Any]:
    from tikmix_pipeline.influence.curvature.fit import fit_factors
    from tikmix_pipeline.influence.curvature.progress import FitProgress
    from tikmix_pipeline.influence.samples import MeasuredText

    text = MeasuredText.open(checkpoint, corpus, model=model, train=train, influence=influence, seed=seed)
    factors = fit_factors(
        text.model,
        text.factor_batches(),
        kind=kind,
        fisher=influence.fisher,
        seed=seed,
        groups=validate.groups_of(kind, influence),
        progress=FitProgress(work.begin(), work.key),
    )
    write: Callable[[Path], Any] = factors.save
    return write


@step(_relevant_to_factors("diagonal"))
def fit_diagonal(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    validate: ValidateParameters,
    seed: int,
    work: WorkFolder,
) -> Callable[[Path], Any]:
    """Fit the diagonal of the Fisher, over the groups that any candidate takes."""
    return _fit("diagonal", checkpoint, corpus, model, train, influence, validate, seed, work)


@step(_relevant_to_factors("kfac"))
def fit_kfac(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    validate: ValidateParameters,
    seed: int,
    work: WorkFolder,
) -> Callable[[Path], Any]:
    """Fit Kronecker factors of the Fisher, over the groups that any candidate takes."""
    return _fit("kfac", checkpoint, corpus, model, train, influence, validate, seed, work)


@step(_relevant_to_factors("ekfac"))
def fit_ekfac(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    validate: ValidateParameters,
    seed: int,
    work: WorkFolder,
) -> Callable[[Path], Any]:
    """Fit Kronecker factors with corrected eigenvalues, over the groups that any candidate takes."""
    return _fit("ekfac", checkpoint, corpus, model, train, influence, validate, seed, work)


@step(_relevant_to_predictions)
def predict_effects(
    checkpoint: Checkpoint,
    mixture: Mapping[str, Any],
    gradients: GradientStore,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    validate: ValidateParameters,
    rounds: int,
    *factors: Factors,
) -> Table:
    """Predict with every candidate what the branches will do; no pass through the model."""
    from tikmix_pipeline.influence.candidates import candidate_influences, prediction_rows
    from tikmix_pipeline.lm.model import resolve_device

    found = candidate_influences(
        validate.candidates,
        gradients,
        checkpoint.model(model).to(resolve_device(influence.device)),
        influence=influence,
        factors=factors,
        optimizer_state=checkpoint.optimizer_tensors(),
        train=train,
        horizon=_branch_rates(train, validate, rounds, mixture["round"])["sum"],
        mixture=mixture["weights"],
    )
    return _as_table(row for one in found for row in prediction_rows(*one, validate.step))


@step(_relevant_to_comparison)
def compare_with_branches(
    losses: Table,
    predictions: Table,
    mixture: Mapping[str, Any],
    train: TrainParameters,
    validate: ValidateParameters,
    seed: int,
) -> tuple[Table, Table]:
    """Compare measured gains with predicted effects, candidate by candidate; both outputs are the same rows."""
    from tikmix_pipeline.influence.agreement import compared_rows

    tasks, domains, gains_RTK = _gains(losses, predictions, validate)
    predicted = {name: _wide(rows, tasks, domains) for name, rows in predictions.groupby("candidate", sort=False)}
    about = {
        "half": validate.half,
        "replicates": len(gains_RTK),
        "branch_tokens": validate.steps(train) * train.tokens_per_step,
        "chunk_tokens": train.tokens_per_chunk,
    }
    settings = {one.label: one.settings() for one in validate.candidates}
    table = _as_table(
        {"round": mixture["round"], **row, **settings[row["curvature"]], **about}
        for row in compared_rows(gains_RTK, predicted, tasks, seed=seed)
    )
    return table, table


@step(_relevant_to_drawing)
def draw_validation(
    losses: Table, predictions: Table, comparison: Table, validate: ValidateParameters
) -> tuple[Figure, Figure]:
    """Draw measured gains over the best candidate's predictions, and all candidates side by side."""
    import numpy as np

    from tikmix_pipeline.influence.agreement import MEAN_GAIN
    from tikmix_pipeline.report.run_figures import candidates_side_by_side, measured_over_predicted

    tasks, domains, gains_RTK = _gains(losses, predictions, validate)
    best = comparison[comparison["best"]]
    shown = best if len(best) else comparison[comparison["curvature"] == comparison["curvature"].iloc[0]]
    predicted_TK = _wide(predictions[predictions["candidate"] == shown["curvature"].iloc[0]], tasks, domains)
    # the mean gain is drawn like one more task
    gains_RMK = np.concatenate([gains_RTK, gains_RTK.mean(axis=1, keepdims=True)], axis=1)
    predicted_MK = np.concatenate([predicted_TK, predicted_TK.mean(axis=0, keepdims=True)])
    points = _as_table(
        {"task": task, "domain": domain, "predicted": predicted_MK[m, k], "measured": gain}
        for m, task in enumerate([*tasks, MEAN_GAIN])
        for k, domain in enumerate(domains)
        for gain in gains_RMK[:, m, k].tolist()
    )
    return measured_over_predicted(points, shown), candidates_side_by_side(comparison)


def _gains(losses: Table, predictions: Table, validate: ValidateParameters) -> tuple[list[str], list[str], Any]:
    """Return targets, domains and the gains of every branch on the chosen half."""
    from tikmix_pipeline.influence.counterfactual import measured_gains

    tasks, domains = (predictions[name].unique().tolist() for name in ("task", "domain"))
    rows = losses[losses["half"] == validate.half]
    keys = zip(rows["replicate"].tolist(), rows["branch"], rows["task"], strict=True)
    by_key = dict(zip(keys, rows["loss"].tolist(), strict=True))
    return tasks, domains, measured_gains(by_key, tasks=tasks, domains=domains)


def _wide(rows: Table, tasks: list[str], domains: list[str]) -> Any:
    return rows.pivot(index="task", columns="domain", values="predicted").loc[tasks, domains].to_numpy()


def _as_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    import pandas as pd

    return pd.DataFrame(list(rows))
