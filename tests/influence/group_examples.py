"""Tiny sets, and what measuring them takes."""

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from curvature_fits import DAMPED
from influence_oracle import random_batches, tiny_model, train_steps

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.collect import collect_gradients
from tikmix_pipeline.influence.curvature.build import Curvature, build_curvature
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.gradients import deal_sets
from tikmix_pipeline.influence.store import GradientStore, Sets
from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters

DOMAINS = {name: random_batches(10 + i, batches=2, sequences=3, loss="all") for i, name in enumerate(["web", "code"])}
TASKS = {name: random_batches(20 + i) for i, name in enumerate(["arc", "boolq", "piqa"])}
MODELS = [("llama", False), ("llama", True), ("qwen2", False), ("gpt2", True)]
CURVATURES = ["identity", "adam", "diagonal", "kfac", "ekfac"]

Batches = Mapping[str, Sequence[TokenBatch]]


def dealt(domains: Batches = DOMAINS, tasks: Batches = TASKS, *, chunks: int = 3) -> Sets:
    """Cut sets into chunks."""
    return {"task": deal_sets("task", tasks, chunks), "domain": deal_sets("domain", domains, chunks)}


def curvature_of(model: torch.nn.Module, name: str = "kfac", **settings: object) -> Curvature:
    """Fit and build a curvature at a model."""
    parameters = InfluenceParameters.model_validate({"curvature": name, "fisher": "true"} | DAMPED | settings)
    factors = None
    if parameters.needs_factors:
        factors = fit_factors(
            model, random_batches(30), kind=name, fisher=parameters.fisher, seed=3, groups=parameters.groups
        )
    train = TrainParameters()
    state = train_steps(model, train, 2).state_tensors() if name == "adam" else {}
    return build_curvature(parameters, model, factors=factors, optimizer_state=state, train=train, horizon=1.0)


def collected(folder: Path, model: torch.nn.Module | None = None, sets: Sets | None = None) -> GradientStore:
    """Collect gradients into a folder."""
    store = GradientStore(folder)
    collect_gradients(model or tiny_model("llama"), sets or dealt(), store, key="checkpoint")
    return store


class GradientsAlive:
    """Counts, whenever a module begins to sum a gradient, those before it that nobody has let go of."""

    def __init__(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_begin: list[int] = []
        self._measure = module.mean_gradient
        self._before: list[weakref.ref[torch.Tensor]] = []
        monkeypatch.setattr(module, "mean_gradient", self)

    def __call__(self, *arguments, **options):
        self.at_begin.append(sum(tensor() is not None for tensor in self._before))
        mean = self._measure(*arguments, **options)
        self._before += map(weakref.ref, mean.gradient.values())
        return mean
