from collections.abc import Iterator

import numpy as np
import pytest

from tikmix_pipeline.influence.stopping import PartTable, measure_until_stable

MEANS_TK = np.array([[3.0, 1.0, 0.0], [2.0, 0.5, 1.0]])


def softmax_mixture(influence_TK: np.ndarray) -> np.ndarray:
    """A stand-in for the decision: entropy against the mean of the tasks."""
    exponentials_K = np.exp(influence_TK.mean(axis=0))
    return exponentials_K / exponentials_K.sum()


def growing(
    means_TK: np.ndarray, *, task_noise: float, domain_noise: float, sizes: int, asked: list[int]
) -> Iterator[tuple[int, PartTable]]:
    """Tables of 4 task parts, and 4 more domain parts of growing size per growth."""
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
    assert stopping.to_dict()["curve"][0]["tokens"] == 4
