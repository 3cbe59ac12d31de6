"""Group Influence by this library, run by `influence.py`.

Stages:

- `prepare`: draw the sets and train the model.
- `whole`, `matrix`: what is timed against kronfluence, with the strategy `ekfac` or `kfac` on the layers that
  kronfluence tracks, with all domain sequences for the factors; `matrix` from saved factors and an empty store.
- `agreement`: our matrix against kronfluence's, from its factors and from our own.
- `limit`: the whole stage on all parameters, and a plain forward and backward pass, taking turns.

Axes: T tasks, K domains, M parts of a task, L parts of a domain, N sequences, S tokens of a sequence.
"""

import shutil
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers.pytorch_utils  # noqa: F401  an import that a fit would do while timed
from safetensors.torch import load_file, save_file

from influence_model import DOMAINS, LENGTH, Sets, load_model, load_sets, save_experiment, warm_up
from influence_stage import print_result, run_steps, stage_arguments
from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.collect import Collection, collect_gradients, measurement_key
from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.influence.curvature.factors import Factors, LayerFactors
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.curvature.layers import Layout
from tikmix_pipeline.influence.gradients import deal_sets, take_evenly
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.loss import summed_loss
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters

TRACKED = ["linear", "head"]
PEER_STRATEGIES = {"ekfac": "ekfac", "kfac": "kfac", "default": "ekfac"}
"""What each strategy of ours is held against; `default` is what a user gets, who has `ekfac` from kronfluence."""

Floats = npt.NDArray[np.float64]


class Measurement:
    """The stages of one measurement, each a method, as the library's pipeline calls them."""

    def __init__(self, folder: Path, results: Path, parameters: InfluenceParameters) -> None:
        self.model = load_model(folder)
        self.parameters = parameters
        domains, tasks = load_sets(folder)
        self._batches = _batches(domains, parameters.batch_size)
        self.sets = {
            "task": deal_sets("task", _batches(tasks, parameters.batch_size), parameters.micro_batches),
            "domain": deal_sets("domain", self._batches, parameters.micro_batches),
        }
        self._optimizer_state = load_file(folder / "optimizer.safetensors")
        self._factors = results / f"factors-{parameters.curvature}"
        self._store = GradientStore(results / "gradients")
        self.influence_TK: Floats = np.zeros((len(tasks), len(domains)))

    def fit(self) -> None:
        """Fit the factors and save them; measure the gradients of the domains on the way."""
        domains: Any = {"domain": self.sets["domain"]}
        collection = Collection(self.model, domains, self._store, measurement_key(self.model, "benchmark"))
        collection.begin()
        factors = fit_factors(
            self.model,
            take_evenly(self._batches, self.parameters.factor_tokens),
            kind=self.parameters.curvature,
            fisher=self.parameters.fisher,
            seed=0,
            groups=self.parameters.groups,
            collection=collection,
        )
        factors.save(self._factors)

    def collect(self) -> None:
        """Collect the gradients of all parts that are not there yet."""
        collect_gradients(self.model, self.sets, self._store, key=measurement_key(self.model, "benchmark"))

    def build(self, factors: Factors | None = None) -> Curvature:
        """Build the curvature of these factors, of saved ones, or of the optimiser's moments."""
        if factors is None and self.parameters.needs_factors:
            factors = Factors.load(self._factors)
        return build_curvature(
            self.parameters,
            self.model,
            factors=factors,
            optimizer_state=self._optimizer_state,
            train=TrainParameters(beta2=0.999, epsilon=1e-8),
            horizon=None,
        )

    def multiply(self, curvature: Curvature) -> None:
        """Take the products of all parts and reduce them to the matrix and its standard error."""
        found = group_influence(self._store, curvature, memory_megabytes=self.parameters.memory_megabytes)
        self.influence_TK = found.influence_TK

    def whole_stage(self) -> None:
        """Run all stages."""
        if self.parameters.needs_factors:
            self.fit()
        self.collect()
        self.multiply(self.build())

    def forward_and_backward(self) -> None:
        """Pass once over the batches of all parts, and keep nothing."""
        for side in self.sets.values():
            for batch in (batch for parts in side.values() for part in parts for batch in part):
                loss, _ = summed_loss(self.model, batch)
                loss.backward()
                self.model.zero_grad(set_to_none=True)


def _batches(sets: Sets, batch_size: int) -> dict[str, list[TokenBatch]]:
    return {
        name: [TokenBatch.of_windows(batch_BS.numpy()) for batch_BS in tokens_NS.split(batch_size)]
        for name, tokens_NS in sets.items()
    }


def _parameters(arguments: Namespace, **options: Any) -> InfluenceParameters:
    """Return kronfluence's damping, with all domain sequences for the factors, where the options say no more."""
    settings = {"batch_size": arguments.batch_size, "micro_batches": arguments.parts, "factor_tokens": 10**9}
    settings |= {"inverse": "damped", "damping": 0.1, "damping_unit": "relative"}
    return InfluenceParameters(**settings | options)


def _tracked(arguments: Namespace, strategy: str) -> Measurement:
    options = {"curvature": strategy, "fisher": "true"}  # as kronfluence fits them
    if strategy == "default":
        options = InfluenceParameters().model_dump(include={"curvature", "fisher", "factor_tokens"})
    measurement = Measurement(
        arguments.folder, arguments.folder / "ours" / strategy, _parameters(arguments, groups=TRACKED, **options)
    )
    warm_up(measurement.model, load_sets(arguments.folder)[0]["domain_0"][:4])
    return measurement


def time_whole(arguments: Namespace) -> dict[str, Any]:
    """Time all that a measurement takes."""
    shutil.rmtree(arguments.folder / "ours" / arguments.strategy / "gradients", ignore_errors=True)
    measurement = _tracked(arguments, arguments.strategy)
    steps = {"factors and gradients of domains": measurement.fit, "gradients of tasks": measurement.collect}
    return run_steps(steps | {"products": lambda: measurement.multiply(measurement.build())})


def time_matrix(arguments: Namespace) -> dict[str, Any]:
    """Time gradients and products, from saved factors and an empty store."""
    shutil.rmtree(arguments.folder / "ours" / arguments.strategy / "gradients", ignore_errors=True)
    measurement = _tracked(arguments, arguments.strategy)
    timed = run_steps({"gradients": measurement.collect, "products": lambda: measurement.multiply(measurement.build())})
    path = arguments.folder / f"ours-{arguments.strategy}.safetensors"
    save_file({"influence_TK": torch.from_numpy(measurement.influence_TK)}, path)
    return timed


def kronfluence_factors(folder: Path, strategy: str) -> Factors:
    """Load the factors that kronfluence saved as our artifact.

    Its eigenvalues of `ekfac` are per sequence, those of `kfac` per token; λ, relative to their mean, follows either.
    """
    names = ["activation_eigenvectors", "gradient_eigenvectors", "activation_eigenvalues", "gradient_eigenvalues"]
    names += ["lambda_matrix", "num_lambda_processed"] if strategy == "ekfac" else []
    saved = folder / "kronfluence" / f"factors_{strategy}"
    found = {name: load_file(saved / f"{name}.safetensors") for name in names}
    layers, tensors = [], {}
    for layer, columns_ii in found["activation_eigenvectors"].items():
        if strategy == "ekfac":
            eigenvalues_oi = found["lambda_matrix"][layer].double() / found["num_lambda_processed"][layer]
        else:
            eigenvalues_oi = torch.outer(
                found["gradient_eigenvalues"][layer].double(), found["activation_eigenvalues"][layer].double()
            )
        named = {"rows": found["gradient_eigenvectors"][layer], "columns": columns_ii, "eigenvalues": eigenvalues_oi}
        tensors |= {f"{layer}/{role}": values for role, values in named.items()}
        roles = {role: f"{layer}/{role}" for role in named}
        group = "head" if layer == "head" else "linear"
        layers.append(LayerFactors(layer, group, "kronecker", Layout(f"{layer}.weight"), roles))
    return Factors(strategy, "true", 0, sum(DOMAINS.values()) * LENGTH, tuple(TRACKED), tuple(layers), tensors)


def compare(arguments: Namespace) -> dict[str, Any]:
    """Hold our matrices to kronfluence's, strategy by strategy."""
    from scipy.stats import spearmanr

    found = {}
    for strategy, peer in PEER_STRATEGIES.items():
        own_TK, peer_TK, aggregated_TK = (
            load_file(arguments.folder / f"{name}.safetensors")["influence_TK"].numpy()
            for name in (f"ours-{strategy}", f"kronfluence-fastest-{peer}", f"kronfluence-aggregated-{peer}")
        )
        assert _difference(aggregated_TK, peer_TK) < 1e-5, "kronfluence's routes differ"
        measurement = _tracked(arguments, peer)
        measurement.collect()
        measurement.multiply(measurement.build(kronfluence_factors(arguments.folder, peer)))
        scale = float((own_TK * peer_TK).sum() / (own_TK**2).sum())
        found[strategy] = {
            "difference": _difference(measurement.influence_TK, peer_TK),
            "own_difference": _difference(scale * own_TK, peer_TK),
            "spearman": float(spearmanr(own_TK.ravel(), peer_TK.ravel()).statistic),
            "spearman_by_task": float(
                np.mean([spearmanr(own_K, peer_K).statistic for own_K, peer_K in zip(own_TK, peer_TK, strict=True)])
            ),
        }
    return found


def _difference(one_TK: Floats, other_TK: Floats) -> float:
    return float(np.abs(one_TK - other_TK).max() / np.abs(other_TK).max())


def time_limit(arguments: Namespace) -> dict[str, Any]:
    """Let a plain pass and the whole stage on all parameters take turns."""
    results = arguments.folder / "limit"
    every_token = _parameters(arguments, curvature="kfac", fisher="true")
    default = InfluenceParameters().model_dump(include={"fisher", "factor_tokens"})
    settings = {
        "kfac": every_token,
        "kfac_empirical": every_token.model_copy(update={"fisher": "empirical"}),
        "kfac_default": every_token.model_copy(update=default),
        "adam": _parameters(arguments, curvature="adam"),
        "identity": _parameters(arguments, curvature="identity"),
    }
    measurements = {name: Measurement(arguments.folder, results, setting) for name, setting in settings.items()}
    plain = measurements["kfac"].forward_and_backward
    plain()
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in measurements}
    for _ in range(arguments.repetitions):
        for name, measurement in measurements.items():
            shutil.rmtree(results, ignore_errors=True)
            pairs[name].append((_seconds(plain), _seconds(measurement.whole_stage)))
    return {"pairs": pairs}


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def prepare(arguments: Namespace) -> dict[str, Any]:
    """Make the experiment."""
    save_experiment(arguments.folder)
    return {}


STAGES: dict[str, Callable[[Namespace], dict[str, Any]]] = {
    "prepare": prepare,
    "whole": time_whole,
    "matrix": time_matrix,
    "agreement": compare,
    "limit": time_limit,
}


if __name__ == "__main__":
    chosen = stage_arguments(__doc__, list(STAGES))
    print_result(STAGES[chosen.stage](chosen))
