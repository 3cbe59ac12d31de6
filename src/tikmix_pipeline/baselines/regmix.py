"""RegMix (Liu et al. 2024, arXiv 2407.01492): mixtures on trial in small models, a regression, a simulation.

    candidates   w_n ~ Dirichlet(s · K · prior), few domains or many
    responses    a proxy trained from scratch on each, its loss on the query half of every target
    regression   loss of a target as a function of the mixture
    simulation   many more such mixtures, the mean of those with the least predicted mean loss over the targets

What differs from the paper: one regression per target instead of one of a single target (the Pile's web text); the
trees are XGBoost's; the proxies' optimiser is the run's. A proxy reads far less of a small domain than the run will, so
it knows nothing of what repeating text costs: that is what the bounds are for.

Olmix (allenai/olmix) is this with the log-linear law for the regression (`surrogate: loglinear`) and a pull towards the
prior (`kl`), which it minimises exactly and not among simulated mixtures.

Axes: N proxies, M simulated mixtures, K domains, T targets.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import rel_entr

from tikmix_pipeline.baselines.baseline import Baseline, proxy_model, proxy_schedule, save_initial, within_bounds
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.branch_pool import Branch, BranchResult, BranchSetting, Texts, cost_of_branches, run_branches
from tikmix_pipeline.mixture.bounds import Bounds, unlimited_bounds
from tikmix_pipeline.mixture.simplex import FloatArray, check_mixture, project
from tikmix_pipeline.mixture.sweep.design import dirichlet
from tikmix_pipeline.mixture.sweep.quality import judge
from tikmix_pipeline.mixture.sweep.responses import Responses
from tikmix_pipeline.mixture.sweep.surrogates import fitted_surrogate
from tikmix_pipeline.parameters import EngineParameters, ModelParameters, OptimizeParameters
from tikmix_pipeline.parameters.baselines import RegmixParameters
from tikmix_pipeline.parameters.training import StepParameters
from tikmix_pipeline.progress import progress_bar

_STRENGTHS = 15
_AT_ONCE = 10_000
"""Mixtures whose losses are predicted at a time."""
_FEWEST = 8
"""Proxies that have to come through."""
_LEAST_PRIOR = 1e-12
"""What a divergence from the prior takes for a domain that it leaves out."""
_DOUBTFUL = 0.5
"""A rank correlation below this on held-out proxies is told."""


def regmix(
    shards: TokenShards,
    texts: Texts,
    prior: Mapping[str, float],
    *,
    model: ModelParameters,
    train: StepParameters,
    parameters: RegmixParameters,
    seed: int,
    folder: Path,
    key: str,
    bounds: Bounds | None = None,
    engine: EngineParameters = EngineParameters(),  # noqa: B008 (immutable)
) -> Baseline:
    """Return RegMix's mixture for a corpus and targets.

    Args:
        texts: what the proxies are scored on, by target (`influence.counterfactual.scored_texts`).
        prior: what candidates are drawn around.
        model: the run's; its kind of attention is taken.
        train: the run's; a proxy differs in its length and its learning rates (`proxy_schedule`).
        seed: of initial weights, candidates, folds and simulation.
        folder: where the proxies' losses are kept; a stopped call goes on with those that are missing.
        key: names the code that runs, as in `run_branches`.
        bounds: no candidate leaves them, nor does the result.

    Raises:
        TikmixError: no such preset, the bounds leave too little room for candidates, a proxy cannot be trained at all,
            or too few of them came through.
    """
    box = bounds or unlimited_bounds(OptimizeParameters(), prior)
    prior_K = check_mixture(prior, box.domains, "the prior")
    proxies = _proxies(prior_K, box, parameters, seed)
    proxy = proxy_model(parameters.preset, model, "baselines.regmix.preset")
    save_initial(proxy, shards, folder / "initial", context=train.context, seed=seed)
    steps = parameters.steps(train)
    setting = BranchSetting(
        checkpoint=folder / "initial",
        shards=shards.folder,
        steps=steps,
        model=proxy,
        train=train,
        schedule=proxy_schedule(steps),
        seed=seed,
    )
    results = run_branches(
        setting, proxies, texts, folder=folder / "proxies", key=key, workers=parameters.workers, engine=engine
    )
    responses = _responses(results, box.domains, list(texts))
    weights_K, forecast = _decide(responses, prior_K, box, parameters, seed)
    weights, moved = within_bounds(bounds, dict(zip(box.domains, weights_K.tolist(), strict=True)))
    cost = cost_of_branches(setting, results, texts)
    details = {**dataclasses.asdict(forecast), "proxies": len(responses), "trained": cost.trained}
    return Baseline(weights, cost.training + cost.scoring, (*forecast.notes(), *moved), details)


@dataclass(frozen=True)
class _Forecast:
    """What the regression says of its mixture; losses are means over the targets, in nats per token."""

    spearman: float | None
    """Of predicted and measured losses of held-out proxies; None where it is undefined."""
    predicted_loss: float
    predicted_loss_of_prior: float
    best_measured_loss: float

    def notes(self) -> tuple[str, ...]:
        """Say where the mixture is doubtful."""
        notes = []
        if self.spearman is None or self.spearman < _DOUBTFUL:
            shown = "undefined" if self.spearman is None else f"{self.spearman:.2f}"
            notes.append(
                f"RegMix's regression ranks proxies that it has not seen with a Spearman correlation of {shown}: more "
                "proxies (baselines.regmix.proxies) or longer ones (baselines.regmix.tokens) would make its mixture "
                "more than a guess."
            )
        if self.predicted_loss >= self.predicted_loss_of_prior:
            notes.append(
                "RegMix's regression predicts no lower loss for its mixture than for the prior. With few proxies the "
                "smoother baselines.regmix.surrogate=ridge or gp may see further than trees."
            )
        return tuple(notes)


def _proxies(prior_K: FloatArray, bounds: Bounds, parameters: RegmixParameters, seed: int) -> list[Branch]:
    """Return a branch for each of N mixtures to try, the prior first."""
    try:
        design = dirichlet(
            prior_K,
            count=parameters.proxies,
            min_strength=parameters.min_strength,
            max_strength=parameters.max_strength,
            max_ratio=parameters.max_ratio,
            bounds=bounds,
            seed=seed,
        )
    except TikmixError as error:
        # the sweep's design speaks of its own parameters, which have the same names here but for the number
        told = str(error).replace("sweep.candidates", "baselines.regmix.proxies").replace("sweep.", "baselines.regmix.")
        raise TikmixError(f"RegMix's proxies: {told}") from error
    return [
        Branch(f"proxy {number}", dict(zip(bounds.domains, weights_K, strict=True)))
        for number, weights_K in enumerate(design.weights_NK.tolist())
    ]


def _responses(results: Sequence[BranchResult], domains: Sequence[str], texts: Sequence[str]) -> Responses:
    """Return the losses in nats per token of the proxies that came through."""
    whole = [result for result in results if result.failure is None]
    if len(whole) < _FEWEST:
        raise TikmixError(
            f"Only {len(whole)} of RegMix's {len(results)} proxies came through, and a regression takes {_FEWEST}. "
            "The warnings above say why the others did not."
        )
    return Responses(
        runs=tuple(result.branch.name for result in whole),
        domains=tuple(domains),
        targets=tuple(text.rpartition("/")[2] for text in texts),
        weights_NK=np.array([[result.branch.mixture[domain] for domain in domains] for result in whole]),
        response_NT=np.array(
            [[result.losses[text].nats / result.losses[text].tokens for text in texts] for result in whole]
        ),
    )


def _decide(
    responses: Responses, prior_K: FloatArray, bounds: Bounds, parameters: RegmixParameters, seed: int
) -> tuple[FloatArray, _Forecast]:
    """Return the mean of the simulated mixtures with the least predicted loss, and what is predicted of it."""
    kind = parameters.surrogate
    quality = judge(responses, [kind], folds=parameters.folds, seed=seed, matches={})
    spearman = next(row["aggregate_spearman"] for row in quality.rows if row["surrogate"] == kind)
    surrogate = fitted_surrogate(kind, responses, folds=parameters.folds, seed=seed)
    simulated_MK = _simulated(prior_K, bounds, parameters, seed)
    loss_M = _predicted(surrogate, simulated_MK)
    if parameters.kl:
        loss_M = loss_M + parameters.kl * rel_entr(simulated_MK, np.maximum(prior_K, _LEAST_PRIOR)).sum(axis=1)
    best_M = np.argsort(loss_M, kind="stable")[: parameters.top]
    weights_K: FloatArray = simulated_MK[best_M].mean(axis=0)
    at_decided, at_prior = _predicted(surrogate, np.stack([weights_K, prior_K])).tolist()
    best = float(responses.response_NT.mean(axis=1).min())
    return weights_K, _Forecast(spearman if np.isfinite(spearman) else None, at_decided, at_prior, best)


def _simulated(prior_K: FloatArray, bounds: Bounds, parameters: RegmixParameters, seed: int) -> FloatArray:
    """Return M mixtures drawn around the prior as the candidates are, moved inside the bounds."""
    # the candidates are drawn from the bare seed
    rng = np.random.default_rng([seed, 1])
    present_K = prior_K > 0
    strengths = np.geomspace(parameters.min_strength, parameters.max_strength, _STRENGTHS)
    shares = np.array_split(np.arange(parameters.samples), _STRENGTHS)
    drawn_MK = np.zeros((parameters.samples, len(prior_K)))
    for strength, rows in zip(strengths, shares, strict=True):
        alpha_K = strength * len(prior_K) * prior_K[present_K]
        drawn_MK[np.ix_(rows, present_K)] = rng.dirichlet(alpha_K, size=len(rows))
    return project(drawn_MK, bounds.box(), bounds.halfspaces())


def _predicted(surrogate: Any, weights_MK: FloatArray) -> FloatArray:
    """Return the predicted mean loss over the targets, in nats per token."""
    loss_M = np.empty(len(weights_MK))
    with progress_bar("Simulation", len(weights_MK), "mixture") as bar:
        for start in range(0, len(weights_MK), _AT_ONCE):
            rows_MK = weights_MK[start : start + _AT_ONCE]
            loss_M[start : start + len(rows_MK)] = surrogate.predict(rows_MK).mean(axis=1)
            bar.update(len(rows_MK))
    return loss_M
