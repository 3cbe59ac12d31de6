"""How does held-out text of a domain respond to its own share of a chunk? Surfaces of branches, and whole runs.

    make bench NAME=heldout_response
    python benchmarks/heldout_response.py --read FOLDER --corpus extended --experiment evx --arms direct ngram paper

trains nothing. Two ways to tell what held-out text of domain k gains over the prior p under a mixture w, in the units
of the tasks' gains, so that both should be as many nats a unit as those are (`strength` 1):

- `second order`: D_k·(w - p) - r z, as guardrails have it, z = (wᵀQw - pᵀQp)/2;
- `logarithm`: what the other domains do for it as before, and its own share by its logarithm, with no r:
  Σ_{j≠k} D_kj (w_j - p_j) + D_kk p_k ln((w_k + ε p_k) / (p_k + ε p_k)), ε = 0.05.

`promise` is about guardrails in nats: from the prior's branch and five others of a surface, one of which is a decided
mixture, how many of the nats that are told at the other decided mixtures does held-out text really move? By the rule
(φ = 1, c₁ from the same branches' tasks), and with φ as those branches measure it on held-out text
(`mixture.heldout_branches`); medians, and from the 5th to the 95th of 100, over draws.

ε was chosen on the surface of the default corpus with seed 0, and nothing else. `at decided` is the strength at the
mixtures that are decided there. Of whole runs it is the chunk after the first decision
(docs/results/tables/heldout_response.csv, to which `--read` adds from the data of `compare`): measured is what the arm
is better by than the proportional arm, in nats per token; `predicted` and `measured` are what held-out text loses as a
share of what the tasks gain, the first as the guardrail of that arm has it: by the logarithm that of `logarithm`, 1.75
times second order that of the others. The last line is one JSON object.

Axes: N mixtures, K domains.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from common import print_figures, print_table
from response import CHOSEN_ON, CURVATURE, DECIDED, DRAWS, Surface, correlation, nats_per_unit, surfaces
from results import REFERENCE, TABLES

FloatArray = npt.NDArray[np.float64]
WAYS = ("second order", "logarithm")
OTHERS = 4
"""Branches that a guardrail in nats is told by, besides the prior's and a decided mixture's: `optimize.branches: 6`."""
TABLE = TABLES / "heldout_response.csv"


def main() -> None:
    """Print what surfaces say and what whole runs do, or read whole runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", type=Path, help="the data folder of comparisons, to write the table from")
    parser.add_argument("--corpus", default="default")
    parser.add_argument("--experiment")
    parser.add_argument("--arms", nargs="+", default=["direct", "ngram", "paper"])
    options = parser.parse_args()
    if options.read:
        new = pd.DataFrame(read_run(options.read, options.corpus, options.experiment, options.arms))
        old = pd.read_csv(TABLE)
        kept = old[~(old["corpus"].eq(options.corpus) & old["seed"].isin(new["seed"]))]
        pd.concat([kept, new]).to_csv(TABLE, index=False, float_format="%.6g")
    print_figures(of_surfaces() | of_promises() | of_runs(pd.read_csv(TABLE)))


def both_ways(
    heldout_KK: FloatArray, curved_KK: FloatArray, weights_NK: FloatArray, prior_K: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the gains of held-out text to second order and by the logarithm of own shares, both (N, K)."""
    from tikmix_pipeline.mixture.own_share import TextGain, own_logarithms
    from tikmix_pipeline.parameters import OptimizeParameters

    r, logarithms_KK = OptimizeParameters().saturation, own_logarithms(heldout_KK, prior_K)
    second = [TextGain.second_order(row_K) for row_K in heldout_KK]
    logarithm = [TextGain.logarithm(*rows, prior_K) for rows in zip(heldout_KK, logarithms_KK, strict=True)]
    first_NK, second_NK = (
        np.array([[gain.over(weights_K, prior_K, r, curved_KK) for gain in gains] for weights_K in weights_NK])
        for gains in (second, logarithm)
    )
    return first_NK, second_NK


def of_surfaces() -> dict[str, float]:
    """Print how well both ways tell held-out text on every surface; return means over those not chosen on."""
    rows, judged = [], []
    for surface in surfaces():
        found = _of_surface(surface)
        rows += [[surface.name, way, *(f"{value:.2f}" for value in row)] for way, row in found.items()]
        if surface.name != CHOSEN_ON:
            judged.append(found)
    print_table(["surface", "way", "mean of domains", "by domain", "strength", "at decided: from", "to"], rows)
    return {
        f"{name}_{way.replace(' ', '_')}": float(np.mean([found[way][place] for found in judged]))
        for way in WAYS
        for place, name in ((0, "pearson"), (2, "strength"))
    }


def _of_surface(surface: Surface) -> dict[str, list[float]]:
    from tikmix_pipeline.mixture.response_fit import coordinates
    from tikmix_pipeline.parameters import OptimizeParameters

    r, at = OptimizeParameters().saturation, surface.reference
    influence_TK, heldout_KK = surface.products[CURVATURE, "influence"], surface.products[CURVATURE, "linear"]
    weights_NK, prior_K = surface.weights_NK, surface.weights_NK[at]
    gain_N = (surface.evaluation_NT[at] - surface.evaluation_NT).mean(axis=1)
    heldout_NK = surface.heldout_NK[at] - surface.heldout_NK
    x_N, z_N = coordinates(influence_TK.mean(axis=0), surface.convex(), weights_NK, prior_K)
    scale = nats_per_unit(x_N - r * z_N, gain_N)
    told = both_ways(heldout_KK, surface.convex(), weights_NK, prior_K)
    others = np.arange(len(gain_N)) != at
    decided = [surface.branches.index(name) for name in (*DECIDED, "paper")]
    found = {}
    for way, told_NK in zip(WAYS, told, strict=True):
        told_N, heldout_N = told_NK.mean(axis=1), heldout_NK.mean(axis=1)
        by_domain = [correlation(told_NK[others, k], heldout_NK[others, k]) for k in range(len(prior_K))]
        strengths = heldout_N[decided] / (scale * told_N[decided])
        found[way] = [
            correlation(told_N[others], heldout_N[others]),
            float(np.mean(by_domain)),
            nats_per_unit(told_N, heldout_N) / scale,
            *(float(strengths.min()), float(strengths.max())),
        ]
    return found


def of_promises() -> dict[str, float]:
    """Print how many of the promised nats held-out text moves, by the rule and as few branches measure it."""
    rows, figures = [], {}
    for surface in surfaces():
        by_rule, by_branches = np.array(list(_promises(surface))).T
        told = [np.quantile(kept, (0.5, 0.05, 0.95)) for kept in (by_rule, by_branches)]
        rows.append([surface.name, *(f"{middle:.2f} ({low:.2f} to {high:.2f})" for middle, low, high in told)])
        figures |= {f"promise_{surface.name}": float(told[1][0]), f"promise_by_rule_{surface.name}": float(told[0][0])}
    print_table(["surface", "promise by the rule", "promise as measured"], rows)
    return figures


def _promises(surface: Surface) -> Iterator[tuple[float, float]]:
    """Yield, draw by draw of a few branches, moved nats over promised ones, by the rule and as measured."""
    from tikmix_pipeline.mixture.heldout_branches import measured_strength
    from tikmix_pipeline.mixture.response_fit import coordinates, fit_response
    from tikmix_pipeline.parameters import OptimizeParameters

    r, at, weights_NK = OptimizeParameters().saturation, surface.reference, surface.weights_NK
    influence_TK, heldout_KK = surface.products[CURVATURE, "influence"], surface.products[CURVATURE, "linear"]
    query_N = (surface.query_NT[at] - surface.query_NT).mean(axis=1)
    heldout_N = (surface.heldout_NK[at] - surface.heldout_NK).mean(axis=1)
    x_N, z_N = coordinates(influence_TK.mean(axis=0), surface.convex(), weights_NK, weights_NK[at])
    told_N = both_ways(heldout_KK, surface.convex(), weights_NK, weights_NK[at])[1].mean(axis=1)
    decided = [surface.branches.index(name) for name in DECIDED]
    others = np.setdiff1d(np.arange(len(told_N)), [at, *decided])
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        one = int(rng.choice(decided))
        few = [one, *rng.choice(others, OTHERS, replace=False)]
        fitted = fit_response(x_N[few], z_N[few], query_N[few], r)
        if not fitted.is_told:
            continue
        rest = [n for n in decided if n != one]
        promised_N = fitted.scale * told_N[rest]
        strength = measured_strength(told_N[few], heldout_N[few], fitted.scale, rule=1.0)
        by_rule = float(np.mean(heldout_N[rest] / promised_N))
        yield by_rule, by_rule / strength


def of_runs(table: pd.DataFrame) -> dict[str, float]:
    """Print both ways' strength after the first decision of whole runs, and what the guardrail said; return medians."""
    from tikmix_pipeline.parameters import OptimizeParameters

    strength = OptimizeParameters(heldout_response="second_order").text_strength
    rows, figures = [], {}
    first = table.groupby(["corpus", "seed"])["seed"].transform("first") // 8 * 8  # those that were planned together
    for (corpus, begin, arm), of_arm in table.groupby(["corpus", first, "arm"], sort=False):
        seeds = of_arm.groupby("seed").agg(
            tasks=("tasks_gain", "first"),
            tasks_told=("tasks_told", "first"),
            heldout=("heldout_gain", "mean"),
            told=("second_order", "mean"),
            logarithm=("logarithm", "mean"),
        )
        scale = seeds["tasks"] / seeds["tasks_told"]
        told = {
            "predicted": -(seeds["logarithm"] if arm == "logarithm" else strength * seeds["told"])
            / seeds["tasks_told"],
            "measured": -seeds["heldout"] / seeds["tasks"],
            "second order": seeds["heldout"] / (scale * seeds["told"]),
            "logarithm": seeds["heldout"] / (scale * seeds["logarithm"]),
        }
        planned = f"{seeds.index.min()} to {seeds.index.max()}"
        rows.append([str(corpus), f"`{arm}`", planned, *map(_spread, told.values())])
        of = f"{corpus}_{begin}_{arm}"
        figures |= {f"{name.replace(' ', '_')}_{of}": float(one.median()) for name, one in told.items()}
    print_table(["corpus", "arm", "seeds", *told], rows)
    return figures


def _spread(values: "pd.Series[float]") -> str:
    return f"{values.median():.2f} ({values.min():.2f} to {values.max():.2f})"


def read_run(data: Path, corpus: str, experiment: str, arms: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row per arm, seed and domain of a comparison's first decided chunk."""
    from tikmix_pipeline.corpus.shards import TokenShards

    results = data / "07_model_output"
    seeds = sorted(int(path.suffix[1:]) for path in results.glob(f"{experiment}.direct.*"))
    shards = TokenShards.open(data / "03_primary" / corpus)
    for seed in seeds:
        for row in _read_seed(results, shards, experiment, seed, arms):
            yield {"corpus": corpus, **row}


def _read_seed(results: Path, shards: Any, experiment: str, seed: int, arms: Sequence[str]) -> Iterator[dict[str, Any]]:
    from tikmix_pipeline.corpus.tasks import TaskItems
    from tikmix_pipeline.mixture.second_order import DomainProducts, second_order_gains
    from tikmix_pipeline.parameters import OptimizeParameters

    measured = results / f"{experiment}.direct.{seed}" / "round_0"
    domains = list(shards.domains)
    products = DomainProducts.averaged([pd.read_parquet(measured / "domain_products.parquet")], domains, np.ones(1))
    influence = pd.read_parquet(measured / "influence.parquet").pivot(
        index="task", columns="domain", values="influence"
    )
    mean_K = influence[domains].to_numpy().mean(axis=0)
    items = TaskItems.open(shards.tasks_file)
    size = {domain: shards.bytes_per_token(domain) for domain in domains}
    size |= {task: items.bytes_per_token(task, "evaluation", "text") for task in influence.index}
    reference = _nats(results / f"{experiment}.{REFERENCE}.{seed}", size)
    prior_K = _weights(results / f"{experiment}.direct.{seed}", 0, domains)
    for arm in arms:
        folder = results / f"{experiment}.{arm}.{seed}"
        gain, weights_K = reference - _nats(folder, size), _weights(folder, 1, domains)
        second_1K, logarithm_1K = both_ways(products.heldout_KK, products.curved_KK, weights_K[None], prior_K)
        r = OptimizeParameters().saturation
        tasks_told = second_order_gains(mean_K[None], products.curved_KK, r, weights_K[None], prior_K)[0, 0]
        tasks = {"tasks_gain": gain[influence.index].mean(), "tasks_told": tasks_told}
        of_run = {"arm": arm, "seed": seed, **tasks}
        for k, domain in enumerate(domains):
            told = {"second_order": second_1K[0, k], "logarithm": logarithm_1K[0, k]}
            yield {**of_run, "domain": domain, "weight": weights_K[k], "heldout_gain": gain[domain], **told}


def _nats(folder: Path, size: dict[str, float]) -> "pd.Series[float]":
    """Return the losses of whole texts after the first decided chunk, in nats per token."""
    table = pd.read_parquet(folder / "round_1" / "evaluation.parquet")
    bits = table[table["measure"] == "text"].set_index("name")["bits_per_byte"]
    return pd.Series({name: bits[name] * np.log(2) * of_name for name, of_name in size.items()})


def _weights(folder: Path, number: int, domains: list[str]) -> FloatArray:
    table = pd.read_parquet(folder / "mixtures.parquet")
    weights_K: FloatArray = table[table["round"] == number].set_index("domain")["weight"].loc[domains].to_numpy()
    return weights_K


if __name__ == "__main__":
    main()
