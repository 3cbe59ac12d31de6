"""Twenty steps of training held to a file; `python tests/lm/test_golden_losses.py` writes it anew.

Everything that decides a loss takes part: initial weights, stream, weight change, loss, clipping, AdamW, schedule.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from lm_examples import tiny_model, train_parameters

from tikmix_pipeline.corpus.batches import Windows
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import StepRecord, TrainingState, train_steps

GOLDEN = Path(__file__).parents[1] / "golden" / "lm_losses.json"


def walk(seed: int, strides: list[int]) -> np.ndarray:
    """Write tokens, each a few more than the one before: learnable, and without a tokenizer that may change."""
    steps = np.random.default_rng(seed).choice(strides, size=4_000)
    return (np.cumsum(steps) % 64).astype(np.uint16)


def train_twenty_steps() -> list[StepRecord]:
    train = train_parameters(chunk_tokens=640, learning_rate=0.01, warmup_tokens=192, decay_tokens=320)
    domains = {"up": Windows([walk(1, [1, 2])], 16), "down": Windows([walk(2, [60, 63])], 16)}
    stream = MixtureStream(domains, {"up": 0.7, "down": 0.3}, batch_size=4, seed=5)
    model = tiny_model(64, seed=5)
    state = TrainingState(model, NamedOptimizer(model, train), stream, 5)
    schedule = Schedule.of(train, rounds=2)
    train_steps(state, train, schedule, last_step=10)
    stream.set_weights({"up": 0.2, "down": 0.8})
    train_steps(state, train, schedule, last_step=20)
    return state.records


def test_losses_are_those_of_the_golden_file():
    """Adding in another order moves losses by 2e-7 and norms by 5e-7 of themselves (measured with micro-batches of 1).

    The tolerance leaves other processors fifty times that; any mistake moves them more.
    """
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    records = train_twenty_steps()
    assert [record.loss for record in records] == pytest.approx(golden["loss"], rel=1e-5)
    assert [record.gradient_norm for record in records] == pytest.approx(golden["gradient_norm"], rel=2.5e-5)
    assert [record.learning_rate for record in records] == pytest.approx(golden["learning_rate"], rel=1e-9)


if __name__ == "__main__":
    columns = {
        name: [float(f"{getattr(record, name):.12g}") for record in train_twenty_steps()]
        for name in ("loss", "gradient_norm", "learning_rate")
    }
    GOLDEN.write_text(json.dumps(columns, indent=1) + "\n", encoding="utf-8")
