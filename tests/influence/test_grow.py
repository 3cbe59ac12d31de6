import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from group_examples import TASKS, curvature_of
from influence_oracle import random_batches, tiny_model

from tikmix_pipeline.influence import collect
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.grow import collect_until_stable
from tikmix_pipeline.influence.parts import deal_sets
from tikmix_pipeline.influence.samples import Parts
from tikmix_pipeline.influence.stopping import ImpliedMixture, Stopping
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.influence.tensor_file import TensorFile
from tikmix_pipeline.lm.cost import NO_COST, Cost
from tikmix_pipeline.parameters import InfluenceParameters


def growths() -> Iterator[tuple[int, Parts]]:
    parts: Parts = {"web": [], "code": []}
    for growth in range(3):
        for seed, dealt in enumerate(parts.values()):
            dealt += [random_batches(100 * seed + 4 * growth + part, batches=1, loss="all") for part in range(4)]
        yield 4 * 3 * 6 * (growth + 1), parts


def grow(folder: Path, implied_mixture: ImpliedMixture) -> Stopping:
    model = tiny_model("llama")
    return collect_until_stable(
        model,
        deal_sets("task", TASKS, 4),
        growths(),
        curvature_of(model, "identity"),
        GradientStore(folder),
        key="checkpoint",
        implied_mixture=implied_mixture,
        parameters=InfluenceParameters(stable_within=0.1),
    )


def indifferent(influence_TK: np.ndarray) -> np.ndarray:
    return np.full(influence_TK.shape[1], 1 / influence_TK.shape[1])


def erratic(influence_TK: np.ndarray) -> np.ndarray:
    return np.eye(influence_TK.shape[1])[int(abs(influence_TK[0, 0]) * 1e9) % 2]


def test_stable_mixture_ends_the_measurement_at_its_smallest(tmp_path):
    assert grow(tmp_path, indifferent).reason == "stable"
    store = GradientStore(tmp_path)
    assert [len(store.figures("domain", name)) for name in store.sets("domain")] == [4, 4]
    assert store.notes == {"reason": "stable", "curve": store.notes["curve"]}
    assert [point["tokens"] for point in store.notes["curve"]] == [72]


def test_unstable_mixture_lets_it_grow_to_the_end_and_later_runs_measure_nothing(tmp_path, monkeypatch):
    assert grow(tmp_path, erratic).reason == "cap"
    store = GradientStore(tmp_path)
    assert [len(store.figures("domain", name)) for name in store.sets("domain")] == [12, 12]
    assert group_influence(store, curvature_of(tiny_model("llama"), "identity")).products_TMKL.shape == (3, 4, 2, 12)
    monkeypatch.setattr(collect, "mean_gradient", None)
    assert grow(tmp_path, indifferent).reason == "stable"
    assert grow(tmp_path, erratic).reason == "cap"


def test_products_of_every_size_are_part_of_the_cost(tmp_path):
    """3 tasks in 4 parts meet 2 domains in 4, 8 and 12 parts, over all parameters."""
    grow(tmp_path, erratic)
    store = GradientStore(tmp_path)
    collected = sum((Cost(**part) for part in part_costs(store)), NO_COST)
    parameters = sum(parameter.numel() for parameter in tiny_model("llama").parameters())
    assert store.cost.tokens == collected.tokens
    assert store.cost.flops - collected.flops == 2 * parameters * 12 * (8 + 16 + 24)


def part_costs(store: GradientStore) -> list[dict]:
    files = sorted(store.folder.glob("*/*.safetensors"))
    return [json.loads(TensorFile.open(file).metadata["part"])["cost"] for file in files]


def test_killed_growth_goes_on_where_it_was(tmp_path, monkeypatch):
    grow(tmp_path / "whole", erratic)
    measured, measure = [], collect.mean_gradient

    def watched(*args, **kwargs):
        measured.append(kwargs["of"])
        if len(measured) == 26:
            raise KeyboardInterrupt
        return measure(*args, **kwargs)

    monkeypatch.setattr(collect, "mean_gradient", watched)
    with pytest.raises(KeyboardInterrupt):
        grow(tmp_path / "killed", erratic)
    grow(tmp_path / "killed", erratic)
    assert len(measured) == 12 + 24 + 1
    for path in (tmp_path / "whole").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes()
