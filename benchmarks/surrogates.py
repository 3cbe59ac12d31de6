"""How well do the surrogates predict, from how many runs, and what does a sweep of the paper's size cost?

RegMix's public table: learning curves on subsets of the 512 mixtures, judged on the 256 others, beside LightGBM with
RegMix's settings but its stop on the test rows. "mean of 13" is the mean Spearman over the losses, "mean13" that of one
model of their mean. Then a sweep of the paper's size, 26 domains and 256 candidates with 9 targets, on a made response:
seconds of the candidates, of the judgement of all four surrogates, and of fit, importance and search.
All in one thread.

    make bench NAME=surrogates
    python benchmarks/surrogates.py --tables ../shared/regmix --sizes 64 512 --subsets 1
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.multioutput import MultiOutputRegressor
from threadpoolctl import threadpool_limits

from common import machine, print_figures, print_table
from tikmix_pipeline.mixture.bounds import unlimited_bounds
from tikmix_pipeline.mixture.sweep.design import latin_hypercube
from tikmix_pipeline.mixture.sweep.quality import judge
from tikmix_pipeline.mixture.sweep.regression_data import RegressionData
from tikmix_pipeline.mixture.sweep.responses import Responses, varies
from tikmix_pipeline.mixture.sweep.solve import solve_surrogate
from tikmix_pipeline.mixture.sweep.surrogates import build_surrogate, importance
from tikmix_pipeline.mixture.sweep.tables import read_responses
from tikmix_pipeline.parameters import OptimizeParameters, SweepParameters
from tikmix_pipeline.parameters.sweep import TABLE_SURROGATES
from tikmix_pipeline.progress import no_progress_bars

TABLES = Path(__file__).resolve().parents[2] / "shared" / "regmix"
FOLDS = 5
DOMAINS, CANDIDATES, TARGETS = 26, 256, 9


def lightgbm() -> Any:
    """RegMix's regression: its notebook's settings, all trees kept."""
    from lightgbm import LGBMRegressor

    return MultiOutputRegressor(
        LGBMRegressor(
            n_estimators=1000, learning_rate=0.01, objective="regression", random_state=42, n_jobs=1, verbosity=-1
        )
    )


def builders(seed: int) -> dict[str, Callable[[], Any]]:
    """All that is compared, by name."""
    ours = {kind: lambda kind=kind: build_surrogate(kind, folds=FOLDS, seed=seed) for kind in TABLE_SURROGATES}
    return {**ours, "lightgbm": lightgbm}


def read_table(folder: Path, split: str) -> Responses:
    """One of RegMix's two tables."""
    return read_responses(
        folder / f"{split}_mixture_1m.csv",
        folder / f"{split}_pile_loss_1m.csv",
        domain_prefix="train_the_pile_",
        metric_prefix="metric/the_pile_",
        metric_suffix="_val_loss",
    )


def mean_spearman(predicted_NT: np.ndarray, measured_NT: np.ndarray) -> float:
    """Mean over the targets; nan as soon as one prediction is constant, which ranks nothing."""
    if not varies(predicted_NT).all():
        return math.nan
    return statistics.mean(
        float(spearmanr(predicted_NT[:, t], measured_NT[:, t]).statistic) for t in range(measured_NT.shape[1])
    )


def scores(build: Callable[[], Any], learn: Responses, test: Responses) -> tuple[float, float, float]:
    """Mean Spearman over the losses, Spearman of one model of their mean, and the seconds of the first."""
    start = time.perf_counter()
    predicted_NT = build().fit(learn.weights_NK, learn.response_NT).predict(test.weights_NK)
    seconds = time.perf_counter() - start
    means_N1, measured_N1 = (rows.response_NT.mean(axis=1, keepdims=True) for rows in (learn, test))
    of_mean_N1 = build().fit(learn.weights_NK, means_N1).predict(test.weights_NK)
    return mean_spearman(predicted_NT, test.response_NT), mean_spearman(of_mean_N1, measured_N1), seconds


def mean_and_spread(values: list[float]) -> str:
    """Format the mean of the subsets with their range; undefined if any of them is."""
    if any(math.isnan(value) for value in values):
        return "undefined"
    return f"{statistics.mean(values):.4f} ({min(values):.3f} - {max(values):.3f})"


def learning_curves(learn: Responses, test: Responses, sizes: list[int], subsets: int) -> dict[str, float]:
    """Print what each surrogate makes of how many rows; return the means."""
    rows, figures = [], {}
    for size in sizes:
        samples = [
            learn.take(np.sort(np.random.default_rng([size, subset]).permutation(len(learn))[:size]))
            for subset in range(subsets if size < len(learn) else 1)
        ]
        for name, build in builders(seed=0).items():
            of_each, of_mean, seconds = zip(*(scores(build, sample, test) for sample in samples), strict=True)
            figures[f"{name}_{size}"], figures[f"{name}_mean13_{size}"] = map(statistics.mean, (of_each, of_mean))
            figures[f"{name}_{size}_seconds"] = statistics.mean(seconds)
            cells = [mean_and_spread(list(of_each)), mean_and_spread(list(of_mean)), f"{statistics.mean(seconds):.2f}"]
            rows.append([name, str(size), *cells])
    print_table(["surrogate", "n", "mean of 13", "mean13", "seconds"], rows)
    return figures


@contextmanager
def timed(figures: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds inside to the figures."""
    start = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - start


def paper_size() -> dict[str, float]:
    """A sweep as large as the paper's on a made response with interactions and noise; return seconds."""
    rng = np.random.default_rng(0)
    domains = tuple(f"domain{k}" for k in range(DOMAINS))
    targets = tuple(f"target{t}" for t in range(TARGETS))
    optimize = OptimizeParameters(method="paper", pareto=False)
    sweep = SweepParameters.model_validate({"response": "table", "table": {"ratios": "-", "metrics": "-"}})
    centre_K, effect_KT = rng.dirichlet(np.full(DOMAINS, 2.0)), rng.normal(size=(DOMAINS, TARGETS))
    figures: dict[str, float] = {}
    with timed(figures, "candidates_seconds"):
        bounds = unlimited_bounds(optimize, domains)
        design = latin_hypercube(centre_K, count=CANDIDATES, low=0.5, high=2.0, bounds=bounds, seed=0)
    response_NT = np.exp(3 * design.weights_NK @ effect_KT) + 0.01 * rng.normal(size=(CANDIDATES, TARGETS))
    runs = tuple(str(n) for n in range(CANDIDATES))
    responses = Responses(runs, domains, targets, design.weights_NK, response_NT)
    with no_progress_bars():
        for kind in TABLE_SURROGATES:
            with timed(figures, f"judge_{kind}_seconds"):
                judge(responses, [kind], folds=FOLDS, seed=0, matches={})
    data = RegressionData.of(responses, influence_TK=None, sweep=sweep, parameters=optimize)
    for kind in TABLE_SURROGATES:
        with timed(figures, f"fit_and_search_{kind}_seconds"):
            surrogate = build_surrogate(kind, folds=FOLDS, seed=0).fit(responses.weights_NK, responses.response_NT)
            importance(surrogate, responses.weights_NK, responses.response_NT, seed=0)
            solve_surrogate(
                surrogate.predict,
                data=data,
                direct=None,
                box=design.box,
                pareto=optimize.pareto,
                sweep=sweep,
                seed=0,
                prior_K=centre_K,
            )
    judged = sum(figures[f"judge_{kind}_seconds"] for kind in TABLE_SURROGATES)
    slowest = max(figures[f"fit_and_search_{kind}_seconds"] for kind in TABLE_SURROGATES)
    figures["fit_judge_and_search_seconds"] = judged + slowest
    print(f"\n{DOMAINS} domains, {CANDIDATES} candidates, {TARGETS} targets")
    print_table(
        ["step", "seconds"], [[name.removesuffix("_seconds"), f"{value:.1f}"] for name, value in figures.items()]
    )
    return figures


def main() -> None:
    """Print the learning curves where the table is there, then the cost of a sweep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, default=TABLES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--subsets", type=int, default=3)
    options = parser.parse_args()
    print(machine("numpy", "scikit-learn", "lightgbm"))
    figures: dict[str, float] = {}
    with threadpool_limits(1):
        if options.tables.is_dir():
            learn, test = (read_table(options.tables, split) for split in ("train", "test"))
            figures |= learning_curves(learn, test, options.sizes, options.subsets)
        else:
            print(f"{options.tables} is not there: no learning curves")
        figures |= paper_size()
    # what is undefined is no figure
    print_figures({name: value for name, value in figures.items() if not math.isnan(value)})


if __name__ == "__main__":
    main()
