import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from group_examples import TASKS, curvature_of
from influence_oracle import random_batches, tiny_model

from tikmix_pipeline.influence import collect
from tikmix_pipeline.influence.gradients import deal_sets
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.samples import Chunks
from tikmix_pipeline.influence.stopping import (
    ChunkTable,
    ImpliedMixture,
    Stopping,
    collect_until_stable,
    measure_until_stable,
)
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.influence.tensor_file import TensorFile
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.parameters import InfluenceParameters

MEANS_TK = np.array([[3.0, 1.0, 0.0], [2.0, 0.5, 1.0]])


def softmax_mixture(influence_TK: np.ndarray) -> np.ndarray:
    """A stand-in for the decision: entropy against the mean of the tasks."""
    exponentials_K = np.exp(influence_TK.mean(axis=0))
    return exponentials_K / exponentials_K.sum()


def growing(
    means_TK: np.ndarray, *, task_noise: float, domain_noise: float, sizes: int, asked: list[int]
) -> Iterator[tuple[int, ChunkTable]]:
    """Tables of 4 task chunks, and 4 more domain chunks of growing size per growth."""
    rng = np.random.default_rng(0)
    tasks, domains = means_TK.shape
    task_TMK = means_TK[:, None] + task_noise * rng.normal(size=(tasks, 4, domains))
    tokens, windows = np.full((domains, 4), 1), [1] * 4
    noise_TKL = domain_noise * rng.normal(size=(tasks, domains, 4))
    for growth in range(sizes):
        if growth:
            size = 2 ** (growth - 1)
            windows += [size] * 4
            more = domain_noise / np.sqrt(size) * rng.normal(size=(tasks, domains, 4))
            noise_TKL = np.concatenate([noise_TKL, more], axis=2)
            tokens = np.tile(windows, (domains, 1))
        asked.append(growth)
        yield 4 * 2**growth, (task_TMK[..., None] + noise_TKL[:, None], np.full((tasks, 4), 5), tokens)


def run(**settings: float) -> tuple[str, list[int], list[float]]:
    asked: list[int] = []
    tables = growing(MEANS_TK, sizes=6, asked=asked, **settings)
    stopping = measure_until_stable(tables, softmax_mixture, stable_within=0.05)
    assert [point.tokens for point in stopping.curve] == [4 * 2**growth for growth in asked]
    return stopping.reason, asked, [point.total_variation for point in stopping.curve]


def test_clear_case_stops_at_the_smallest_measurement():
    assert run(task_noise=0.01, domain_noise=0.01)[:2] == ("stable", [0])


def test_noise_that_text_lowers_is_measured_until_it_is_low():
    reason, asked, variation = run(task_noise=0.0, domain_noise=0.8)
    assert reason == "stable"
    assert 1 < len(asked) < 6
    assert variation[-1] <= 0.05 < variation[0]


def test_tie_that_no_affordable_text_decides_runs_to_the_cap():
    reason, asked, variation = run(task_noise=0.0, domain_noise=30.0)
    assert (reason, len(asked)) == ("cap", 6)
    assert min(variation) > 0.05


def test_noise_of_the_tasks_items_is_told_and_costs_no_further_text():
    reason, asked, variation = run(task_noise=3.0, domain_noise=0.01)
    assert (reason, asked) == ("tasks", [0])
    assert variation[0] > 0.05


@pytest.mark.parametrize(
    ("reason", "words"),
    [("stable", "no more than influence.stable_within"), ("tasks", "influence.items_per_task"), ("cap", "max_tokens")],
)
def test_reason_is_told_with_the_parameter_to_change(reason, words):
    noises = {"stable": (0.01, 0.01), "tasks": (3.0, 0.01), "cap": (0.0, 30.0)}[reason]
    tables = growing(MEANS_TK, task_noise=noises[0], domain_noise=noises[1], sizes=3, asked=[])
    stopping = measure_until_stable(tables, softmax_mixture, stable_within=0.05)
    assert stopping.reason == reason
    assert words in stopping.in_words(0.05)
    assert stopping.curve[0].tokens == 4


def growths() -> Iterator[tuple[int, Chunks]]:
    chunks: Chunks = {"web": [], "code": []}
    for growth in range(3):
        for seed, dealt in enumerate(chunks.values()):
            dealt += [random_batches(100 * seed + 4 * growth + chunk, batches=1, loss="all") for chunk in range(4)]
        yield 4 * 3 * 6 * (growth + 1), chunks


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
    """3 tasks in 4 chunks meet 2 domains in 4, 8 and 12 chunks, over all parameters."""
    grow(tmp_path, erratic)
    store = GradientStore(tmp_path)
    collected = sum((Cost(**chunk) for chunk in chunk_costs(store)), NO_COST)
    parameters = sum(parameter.numel() for parameter in tiny_model("llama").parameters())
    assert store.cost.tokens == collected.tokens
    assert store.cost.flops - collected.flops == 2 * parameters * 12 * (8 + 16 + 24)


def chunk_costs(store: GradientStore) -> list[dict]:
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
