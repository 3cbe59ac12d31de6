"""How fast the mixture stream is, against training and against the streams of Grain, datasets and torchdata.

    make bench NAME=stream        (or, with benchmarks/requirements.txt installed: python benchmarks/stream.py)

One run, one set of memory-mapped uint16 shards, context 256, batch 16. Every stream reads shuffled windows of six
domains by the same weights and yields the same int64 batches. Each is first held to that (`check_mixture`), then all
are timed in turn, repetition after repetition, so that a busy moment of the machine meets all of them. A peer counts
with the fastest of its set-ups (`stream_peers.py`). Ratios are medians over the repetitions, of tokens per second.

Figures: `over_training_rate` (tokens that the default model trains on per second, by the library's own trainer),
`over_grain`, `over_datasets`, `over_torchdata`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from common import machine, print_figures, print_table, spread
from stream_peers import BATCH_SIZE, CONTEXT, PEERS, SEED, Batches, Shards
from tikmix_pipeline.corpus.batches import Windows
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.lm.model import build_model
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.parameters import ModelParameters, TrainParameters

WINDOWS = {"web": 60_000, "code": 20_000, "books": 8_000, "papers": 6_000, "forums": 4_000, "maths": 2_000}
WEIGHTS = {"web": 0.4, "code": 0.25, "books": 0.15, "papers": 0.1, "forums": 0.07, "maths": 0.03}
VOCABULARY = 2048
OURS = "MixtureStream"


def write_shards(folder: Path) -> Shards:
    """Write random tokens, each window labelled by its first three: domain and index; return their memory maps."""
    generator = np.random.default_rng(SEED)
    shards = {}
    for number, (name, count) in enumerate(WINDOWS.items()):
        tokens = generator.integers(0, VOCABULARY, count * CONTEXT + 1, dtype=np.uint16)
        starts = np.arange(count) * CONTEXT
        tokens[starts] = number
        tokens[starts + 1], tokens[starts + 2] = np.divmod(np.arange(count), VOCABULARY)
        path = folder / f"{name}.bin"
        tokens.tofile(path)
        shards[name] = np.memmap(path, dtype=np.uint16, mode="r")
    return shards


def open_stream(shards: Shards) -> MixtureStream:
    """Open the library's own stream on the shards."""
    domains = {name: Windows([tokens], CONTEXT) for name, tokens in shards.items()}
    return MixtureStream(domains, WEIGHTS, batch_size=BATCH_SIZE, seed=SEED)


def batches_of(stream: MixtureStream) -> Iterator[np.ndarray]:
    """Turn the stream into an iterator, as the peers are."""
    while True:
        yield stream.next_batch()


def check_mixture(batches: Batches, shards: Shards, rows: int = 24_000) -> Mapping[str, float]:
    """Hold a stream to the task, and return the realised shares.

    Every row is a window, the shares are the weights within five standard deviations of random draws, the rows are
    shuffled, and no window of a domain comes twice in its first epoch.
    """
    first = [next(batches) for _ in range(rows // BATCH_SIZE)]
    assert all(batch.shape == (BATCH_SIZE, CONTEXT + 1) and batch.dtype == np.int64 for batch in first)
    tokens = np.concatenate(first)
    shares = {}
    for number, (name, shard) in enumerate(shards.items()):
        mine = tokens[tokens[:, 0] == number]
        indices = mine[:, 1] * VOCABULARY + mine[:, 2]
        assert np.array_equal(mine, shard[indices[:, None] * CONTEXT + np.arange(CONTEXT + 1)]), name
        epoch = indices[: WINDOWS[name]]
        assert len(np.unique(epoch)) == len(epoch), f"{name}: a window came twice"
        assert abs(np.corrcoef(np.arange(len(epoch)), epoch)[0, 1]) < 0.9, f"{name}: not shuffled"
        shares[name] = len(mine) / len(tokens)
        deviation = (WEIGHTS[name] * (1 - WEIGHTS[name]) / len(tokens)) ** 0.5
        assert abs(shares[name] - WEIGHTS[name]) < 5 * deviation, f"{name}: {shares[name]} for {WEIGHTS[name]}"
    return shares


def streaming_rate(batches: Batches, seconds: float) -> float:
    """Read batches for about `seconds`; return tokens per second."""
    read, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(20):
            read += len(next(batches))
    return read * CONTEXT / elapsed


def training_rates(shards: Shards, repetitions: int, steps: int) -> list[float]:
    """Train the default model on the stream with the library's trainer; return tokens per second per repetition."""
    parameters = TrainParameters(batch_size=BATCH_SIZE, context=CONTEXT)
    model = build_model(ModelParameters(), vocabulary_size=VOCABULARY, context=CONTEXT, seed=SEED)
    state = TrainingState(model, NamedOptimizer(model, parameters), open_stream(shards))
    schedule = Schedule.of(parameters, rounds=4)
    train_steps(state, parameters, schedule, last_step=3)
    rates = []
    for _ in range(repetitions):
        start = time.perf_counter()
        train_steps(state, parameters, schedule, last_step=state.step + steps)
        rates.append(steps * parameters.tokens_per_step / (time.perf_counter() - start))
    return rates


def streaming_rates(
    shards: Shards, folder: Path, repetitions: int, seconds: float
) -> dict[tuple[str, str], list[float]]:
    """Time every stream in turn, repetition after repetition; keys are library and set-up."""
    streams: dict[tuple[str, str], Batches] = {(OURS, ""): batches_of(open_stream(shards))}
    for peer, setups in PEERS.items():
        for setup, build in setups.items():
            streams[peer, setup] = build(shards, WEIGHTS, folder)
    for (peer, setup), batches in streams.items():
        shares = check_mixture(batches, shards)
        print(f"{peer} {setup}".ljust(44), " ".join(f"{name} {share:.4f}" for name, share in shares.items()))
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in streams}
    for _ in range(repetitions):
        for key, batches in streams.items():
            rates[key].append(streaming_rate(batches, seconds))
    return rates


def main() -> None:
    """Run the benchmark and print its table and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="time per stream and repetition")
    parser.add_argument("--training-steps", type=int, default=10, help="optimiser steps per repetition")
    arguments = parser.parse_args()
    print(machine("numpy", "torch", "grain", "datasets", "torchdata"))
    print(f"Realised shares over 24,000 rows, for {WEIGHTS}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = write_shards(folder)
        training = training_rates(shards, arguments.repetitions, arguments.training_steps)
        rates = streaming_rates(shards, folder, arguments.repetitions, arguments.seconds)
        report(training, rates)


def report(training: list[float], rates: Mapping[tuple[str, str], list[float]]) -> None:
    """Print all rates, ours over each, and the figures against the fastest set-up of each peer."""
    ours = rates[OURS, ""]
    over = {key: [mine / other for mine, other in zip(ours, others, strict=True)] for key, others in rates.items()}
    over["training", "default model"] = [statistics.median(ours) / rate for rate in training]
    table = [
        [f"{peer} {setup}", spread([value / 1e6 for value in values]), spread(over[peer, setup])]
        for (peer, setup), values in [*rates.items(), (("training", "default model"), training)]
    ]
    print_table(["stream", "million tokens/s: median (range)", f"{OURS} over it"], table)
    figures = {"over_training_rate": statistics.median(over["training", "default model"])}
    for peer, setups in PEERS.items():
        figures[f"over_{peer}"] = min(statistics.median(over[peer, setup]) for setup in setups)
    figures["tokens_per_second"] = statistics.median(ours)
    figures["training_tokens_per_second"] = statistics.median(training)
    print_figures(figures)


if __name__ == "__main__":
    main()
