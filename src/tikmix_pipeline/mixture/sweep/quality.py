"""How well surrogates predict responses that they have not seen, beside the naive rules.

    Spearman    rank correlation of predicted and measured, with the middle 95 % of a bootstrap over rows
    R²          1 − Σ (measured − predicted)² / Σ (measured − mean)²
    coverage    share of the measured inside `predicted ± q`, where q is the ⌈0.9 (n + 1)⌉-th smallest of n absolute
                residuals on held-out rows, none of them of the row's own fold: 0.9 if the interval is calibrated
    aggregate   Spearman of the mean over the targets, predicted and measured; nan if a target is undefined

A row is predicted by a model that has not seen it: of a cross-validation, within which the model chooses its own
hyper-parameters; or, where there are test rows, of one fitted on all the others. A side that is constant is ranked by
nothing: all its numbers are nan, "undefined" to a reader, and they are in no mean.

The naive rules need no fitting, and a surrogate has to beat them to be worth its runs. Like a loss, lower is better:

    uniform distance    ||w − 1/K||₁: the more even, the better
    matching domain     −ln(w_match + 1e-3): the more of the domain with the target's own name, the better
    additive influence  −S w: each domain helps by what influence says, whatever the others do

They rank, in no unit of the response: of them there is Spearman only.

Axes: N rows, T targets, K domains, B resamples.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.equal_runs import dealt_into_folds
from tikmix_pipeline.mixture.sweep.regression_data import RegressionData
from tikmix_pipeline.mixture.sweep.response_mean import ResponseMean
from tikmix_pipeline.mixture.sweep.responses import Responses, responses_of, varies
from tikmix_pipeline.parameters.sweep import JudgementParameters, SurrogateKind
from tikmix_pipeline.progress import progress_bar
from tikmix_pipeline.statistics import bootstrapped_spearman

if TYPE_CHECKING:
    import pandas as pd

CROSS_VALIDATION = "cross-validation"
TEST = "test"

UNIFORM_DISTANCE = "uniform distance"
MATCHING_DOMAIN = "matching domain"
ADDITIVE_INFLUENCE = "additive influence"

_EPSILON = 1e-3
_NOMINAL = 0.9

Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


@dataclass(frozen=True, eq=False)
class Quality:
    """What `judge` found."""

    rows: list[dict[str, Any]]
    """One per surrogate or rule and target: `surrogate, target, n, spearman, spearman_low, spearman_high, r2, coverage,
    aggregate_spearman, naive, verdict`; n counts the rows that the surrogates had to learn from, and
    `aggregate_spearman` is the same for all targets."""
    predictions: dict[str, FloatArray]
    """Of each surrogate, for the judged rows (N, T)."""
    judged: Responses

    def prediction_rows(self) -> list[dict[str, Any]]:
        """Return a row per surrogate, target and judged run: `run, surrogate, target, measured, predicted, n`."""
        measured_NT = self.judged.response_NT
        figures = [
            (run, kind, target, float(measured_NT[n, t]), float(predicted_NT[n, t]), self.rows[0]["n"])
            for kind, predicted_NT in self.predictions.items()
            for t, target in enumerate(self.judged.targets)
            for n, run in enumerate(self.judged.runs)
        ]
        columns = ("run", "surrogate", "target", "measured", "predicted", "n")
        return [dict(zip(columns, row, strict=True)) for row in figures]


@dataclass(frozen=True, eq=False)
class _Predicted:
    """Predictions of the judged rows, which of their columns are more than a constant, and their intervals' q."""

    prediction_NT: FloatArray
    defined_T: npt.NDArray[np.bool_]
    half_width_NT: FloatArray


def quality_tables(
    data: RegressionData,
    sweep: JudgementParameters,
    *,
    seed: int,
    round_number: int,
    test: tuple["pd.DataFrame", "pd.DataFrame"] | None = None,
    mean: ResponseMean | None = None,
) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Judge a sweep's surrogates beside the naive rules and, where it was measured, the additive influence.

    They learn from all runs of `data`, and are judged on the mixtures and scores of `test` where there are any. `mean`
    is what influence tells, for the surrogate `response`.

    Returns:
        `Quality.rows` with their round, and the predictions behind them.
    """
    import pandas as pd

    responses = data.responses
    found = judge(
        responses,
        sweep.all_compared,
        folds=sweep.folds,
        seed=seed,
        additive_NT=data.additive(data.measured) if test is None else None,
        matches=matching_domains(responses.domains, responses.targets),
        test=None if test is None else data.aggregated(responses_of(*test)),
        mean=mean,
    )
    rows = pd.DataFrame([{"round": round_number, **row} for row in found.rows])
    return rows, pd.DataFrame(found.prediction_rows())


def judge(
    responses: Responses,
    kinds: Sequence[SurrogateKind],
    *,
    folds: int,
    seed: int,
    additive_NT: FloatArray | None = None,
    matches: Mapping[str, str],
    test: Responses | None = None,
    mean: ResponseMean | None = None,
) -> Quality:
    """Judge surrogates and naive rules on rows that none of them has seen.

    Args:
        responses: the rows to learn from.
        folds: of the outer cross-validation and of the inner one; fewer where there are not two mixtures
            for each, and runs of one mixture are in one.
        seed: of the folds, the surrogates and the bootstrap.
        additive_NT: what additive influence predicts of the judged rows, if it was measured.
        matches: target -> the domain of the same kind, where there is one.
        test: rows to be judged on instead; then the cross-validation only gives the intervals.
        mean: as in `surrogates.build_surrogate`.
    """
    from tikmix_pipeline.mixture.sweep.surrogates import fitted_surrogate

    splits: list[Fold] = dealt_into_folds(responses.weights_NK, folds, seed)
    judged = responses if test is None else test
    fits = len(kinds) * (len(splits) + (test is not None))
    with progress_bar("Judging surrogates", fits, "fit") as bar:

        def fit(kind: SurrogateKind, rows: Responses) -> Any:
            surrogate = fitted_surrogate(kind, rows, folds=len(splits), seed=seed, mean=mean)
            bar.update()
            return surrogate

        found: dict[str, _Predicted] = {kind: _predict(partial(fit, kind), responses, test, splits) for kind in kinds}
    naive = naive_predictions(judged, matches, additive_NT)
    nothing_NT = np.full_like(judged.response_NT, np.nan)
    everything = found | {rule: _Predicted(p_NT, varies(p_NT), nothing_NT) for rule, p_NT in naive.items()}
    about: dict[str, Any] = {"n": len(responses), "verdict": CROSS_VALIDATION if test is None else TEST}
    rows = [
        {"surrogate": name, "target": judged.targets[t], **figures, **about, "naive": name in naive}
        for name, predicted in everything.items()
        for t, figures in enumerate(_figures(predicted, judged.response_NT, name in naive, seed))
    ]
    return Quality(rows, {kind: predicted.prediction_NT for kind, predicted in found.items()}, judged)


def better_than_additive(rows: Sequence[Mapping[str, Any]], kind: str) -> tuple[bool, str]:
    """Say whether a surrogate ranks mixtures better than `−S w` does, and by how much, in a sentence.

    Compared are the means of Spearman over the targets where both are defined. Where influence was not measured, or
    ranks nothing, there is nothing to be better than. The rows are those of a `Quality`.
    """
    surrogate, additive = (ranks_of(rows, name) for name in (kind, ADDITIVE_INFLUENCE))
    if not additive:
        return True, f"There is no additive influence to compare the surrogate '{kind}' with."
    both = [target for target in additive if target in surrogate]
    if not both:
        return False, f"The surrogate '{kind}' predicts the same for all mixtures, which additive influence does not."
    ours, theirs = (sum(figures[target] for target in both) / len(both) for figures in (surrogate, additive))
    verdict = "better than" if ours > theirs else "no better than"
    return ours > theirs, (
        f"The surrogate '{kind}' predicts {verdict} additive influence: mean Spearman over {len(both)} "
        f"target{'s' * (len(both) > 1)} {ours:.3f} against {theirs:.3f}."
    )


def ranks_of(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """Return Spearman's correlation of a surrogate or a rule, by the targets where it is defined.

    The rows are those of a `Quality`.
    """
    found = {row["target"]: row["spearman"] for row in rows if row["surrogate"] == name}
    return {target: spearman for target, spearman in found.items() if not math.isnan(spearman)}


def explained(rows: Sequence[Mapping[str, Any]], kind: str) -> dict[str, float]:
    """Return the share of each target's spread that a surrogate explains of rows it was not fitted on, from 0 to 1.

    That is R², and nothing where it is undefined: a surrogate that predicts the same for all mixtures. The rows are
    those of a `Quality`.
    """
    found = {row["target"]: row["r2"] for row in rows if row["surrogate"] == kind}
    return {target: 0.0 if math.isnan(r2) else min(max(r2, 0.0), 1.0) for target, r2 in found.items()}


def _predict(
    fitted: Callable[[Responses], Any], responses: Responses, test: Responses | None, splits: Sequence[Fold]
) -> _Predicted:
    held_out_NT = np.empty_like(responses.response_NT)
    defined_T = np.zeros(len(responses.targets), dtype=np.bool_)
    for learn, held_out in splits:
        held_out_NT[held_out] = fitted(responses.take(learn)).predict(responses.weights_NK[held_out])
        # the constants of several folds differ, and would rank their rows by nothing but the fold
        defined_T |= varies(held_out_NT[held_out])
    residual_NT = np.abs(held_out_NT - responses.response_NT)
    if test is not None:
        prediction_NT = fitted(responses).predict(test.weights_NK)
        half_width_NT = np.broadcast_to(_conformal(residual_NT), prediction_NT.shape)
        return _Predicted(prediction_NT, varies(prediction_NT), half_width_NT)
    half_width_NT = np.empty_like(held_out_NT)
    for learn, held_out in splits:
        half_width_NT[held_out] = _conformal(residual_NT[learn])
    return _Predicted(held_out_NT, defined_T, half_width_NT)


def _conformal(residual_NT: FloatArray) -> FloatArray:
    """Return q of absolute residuals, by target; infinite if there are too few of them for the level."""
    rank = math.ceil(_NOMINAL * (len(residual_NT) + 1))
    if rank > len(residual_NT):
        return np.full(residual_NT.shape[1], np.inf)
    half_width_T: FloatArray = np.sort(residual_NT, axis=0)[rank - 1]
    return half_width_T


def _figures(predicted: _Predicted, measured_NT: FloatArray, is_naive: bool, seed: int) -> Iterator[dict[str, float]]:
    """Yield the numbers of each target, and that of all together, which is nan where the targets cancel out."""
    from scipy.stats import spearmanr

    defined_T = predicted.defined_T & varies(measured_NT)
    means_N2 = np.stack([predicted.prediction_NT.mean(axis=1), measured_NT.mean(axis=1)], axis=1)
    is_ranked = defined_T.all() and varies(means_N2).all()
    aggregate = float(spearmanr(*means_N2.T).statistic) if is_ranked else math.nan
    for t in range(measured_NT.shape[1]):
        measured_N, prediction_N = measured_NT[:, t], predicted.prediction_NT[:, t]
        figures = dict.fromkeys(("spearman", "spearman_low", "spearman_high", "r2", "coverage"), math.nan)
        if defined_T[t]:
            found = bootstrapped_spearman(prediction_N, measured_N, seed=seed)
            figures |= dict(zip(("spearman", "spearman_low", "spearman_high"), found, strict=True))
            if not is_naive:
                error_N = measured_N - prediction_N
                figures["r2"] = float(1 - np.square(error_N).mean() / measured_N.var())
                figures["coverage"] = float((np.abs(error_N) <= predicted.half_width_NT[:, t]).mean())
        yield {**figures, "aggregate_spearman": aggregate}


def naive_predictions(
    responses: Responses, matches: Mapping[str, str], additive_NT: FloatArray | None
) -> dict[str, FloatArray]:
    """Return what each rule predicts, (N, T); nan where it says nothing of a target, as `matches` has no domain for it.

    Without what additive influence predicts of these mixtures there is no such rule.
    """
    weights_NK = responses.weights_NK
    shape = responses.response_NT.shape
    distance_N = np.abs(weights_NK - 1 / weights_NK.shape[1]).sum(axis=1)
    matching_NT = np.full(shape, np.nan)
    for t, target in enumerate(responses.targets):
        if target in matches:
            matching_NT[:, t] = -np.log(weights_NK[:, responses.domains.index(matches[target])] + _EPSILON)
    predictions = {UNIFORM_DISTANCE: np.repeat(distance_N[:, None], shape[1], axis=1), MATCHING_DOMAIN: matching_NT}
    if additive_NT is not None:
        predictions[ADDITIVE_INFLUENCE] = additive_NT
    return predictions


def matching_domains(domains: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Return for each target the domain of the same name, where there is one.

    Domains and targets may each share a beginning and an end, as `train_the_pile_arxiv` and
    `metric/the_pile_arxiv_val_loss` do. Of all ways to cut those off at a break between words, the one that pairs the
    most names is taken, the least cut among equals.
    """
    best: dict[str, str] = {}
    cut_domains = [_cut_all(domains, front, back) for front, back in _shared_ends(domains)]
    cut_targets = [_cut_all(targets, front, back) for front, back in _shared_ends(targets)]
    for of_domain, of_target in itertools.product(cut_domains, cut_targets):
        pairs = {of_target[core]: of_domain[core] for core in of_target if core in of_domain}
        if len(pairs) > len(best):
            best = pairs
    return {target: best[target] for target in targets if target in best}


def _shared_ends(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return how much may be cut from the front and the back of all names, at breaks between words, the least first."""
    starts, ends = _shared_breaks(names), _shared_breaks([name[::-1] for name in names])
    return sorted(itertools.product(starts, ends), key=sum)


def _shared_breaks(names: Sequence[str]) -> list[int]:
    """Return the lengths of the beginnings that all names share and that end where a word does."""
    shared = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return [0, *(place for place, letters in enumerate(shared, start=1) if not letters[0].isalnum())]


def _cut_all(names: Sequence[str], front: int, back: int) -> dict[str, str]:
    """Return the names by what is left of them."""
    return {name[front : len(name) - back]: name for name in names if front + back < len(name)}
