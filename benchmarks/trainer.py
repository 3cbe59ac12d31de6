"""What the trainer costs over a bare loop of forward, backward and step.

    make bench NAME=trainer        (or: python benchmarks/trainer.py)

Both train the same model on batches of the same shape, in one process. The trainer does all that a round of the
`tikmix` pipeline does: it reads the mixture stream, accumulates, clips, checks that the loss is finite, keeps records,
and saves a resume point at the default interval. The bare loop has one batch in memory and torch's fused AdamW; it
neither clips nor looks at its loss. They take turns, a few steps each, until one interval of resume points is full:
that gives one ratio of token rates. Figure: `over_bare_loop`, the median ratio.

Text decides nothing but what is read from disk: the corpus in data/03_primary/default where it is, else random tokens.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from common import machine, print_figures, print_table, spread
from tikmix_pipeline.corpus.batches import Windows
from tikmix_pipeline.corpus.shards import MANIFEST, TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.lm.checkpoint import save_checkpoint
from tikmix_pipeline.lm.model import build_model, parameter_count
from tikmix_pipeline.lm.optimizer import NamedOptimizer
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.lm.trainer import TrainingState, train_steps
from tikmix_pipeline.parameters import ModelParameters, TrainParameters

CORPUS = Path(__file__).parents[1] / "data" / "03_primary" / "default"
VOCABULARY = 2048
RANDOM_WINDOWS = {"web": 8_000, "code": 4_000, "books": 2_000, "papers": 1_000}


def open_text(context: int, folder: Path) -> tuple[Mapping[str, Windows], Path]:
    """Return the windows of the default corpus and its tokenizer's folder, or random tokens and an empty folder."""
    if (CORPUS / MANIFEST).is_file():
        shards = TokenShards.open(CORPUS, verify=False)
        if shards.vocabulary_size == VOCABULARY:
            print(f"Text: {', '.join(shards.domains)} of the default corpus")
            return {domain: shards.windows(domain, context) for domain in shards.domains}, shards.tokenizer_folder
    print("Text: random tokens (there is no default corpus here)")
    generator = np.random.default_rng(0)
    windows = {}
    for name, count in RANDOM_WINDOWS.items():
        generator.integers(0, VOCABULARY, count * context + 1, dtype=np.uint16).tofile(folder / name)
        windows[name] = Windows([np.memmap(folder / name, dtype=np.uint16, mode="r")], context)
    (folder / "tokenizer").mkdir()
    return windows, folder / "tokenizer"


@dataclass
class Trainer:
    """The library's own loop, going on from call to call."""

    state: TrainingState
    parameters: TrainParameters
    folder: Path
    tokenizer: Path
    saving_seconds: list[float] = field(default_factory=list)

    def train(self, steps: int) -> None:
        """Train on, saving resume points where they are due."""
        schedule = Schedule.of(self.parameters, rounds=1)
        train_steps(self.state, self.parameters, schedule, last_step=self.state.step + steps, save=self.save)

    def save(self, state: TrainingState) -> None:
        """Save a resume point."""
        start = time.perf_counter()
        save_checkpoint(state, self.folder / "resume", self.tokenizer)
        self.saving_seconds.append(time.perf_counter() - start)


def bare_loop(model: torch.nn.Module, parameters: TrainParameters) -> Callable[[int], None]:
    """Return a loop of forward, backward and step on one batch."""
    device = next(model.parameters()).device
    tokens_BS = torch.randint(0, VOCABULARY, (parameters.batch_size, parameters.context + 1)).to(device)
    inputs_BP, targets_N = tokens_BS[:, :-1].contiguous(), tokens_BS[:, 1:].flatten()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def train(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=parameters.precision == "bfloat16"):
                logits_BPV = model(input_ids=inputs_BP, use_cache=False).logits
                loss = F.cross_entropy(logits_BPV.float().flatten(0, 1), targets_N)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return train


def seconds(loop: Callable[[int], None], steps: int, device: torch.device) -> float:
    """Time some steps of a loop, to the end of what it has put in the device's queue."""
    start = time.perf_counter()
    loop(steps)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compare(
    trainer: Callable[[int], None], bare: Callable[[int], None], arguments: argparse.Namespace, device: torch.device
) -> tuple[list[float], list[float]]:
    """Let both take turns; return the seconds of each per interval of resume points."""
    interval = TrainParameters().save_every_steps
    # not a multiple of the interval, so that no resume point falls due at the end of a turn, where none is saved
    warm_up = arguments.turn + 1
    for loop in (trainer, bare):
        loop(warm_up)
    totals: dict[str, list[float]] = {"trainer": [], "bare": []}
    for _ in range(arguments.repetitions):
        turns = [
            (seconds(trainer, arguments.turn, device), seconds(bare, arguments.turn, device))
            for _ in range(interval // arguments.turn)
        ]
        for name, times in zip(totals, zip(*turns, strict=True), strict=True):
            totals[name].append(sum(times))
    return totals["trainer"], totals["bare"]


def main() -> None:
    """Run the benchmark and print its table and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="intervals of resume points")
    parser.add_argument("--turn", type=int, default=5, choices=[2, 5, 10, 25], help="steps before the other's turn")
    parser.add_argument("--preset", default=ModelParameters().preset)
    parser.add_argument("--batch-size", type=int, default=TrainParameters().batch_size)
    parser.add_argument("--context", type=int, default=TrainParameters().context)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    print(machine("numpy", "torch", "transformers"))
    parameters = TrainParameters(
        batch_size=arguments.batch_size,
        context=arguments.context,
        precision=arguments.precision,
        chunk_tokens=10**9,
    )
    device = resolve_device(arguments.device)
    preset = ModelParameters(preset=arguments.preset)
    own, bare_model = (
        build_model(preset, vocabulary_size=VOCABULARY, context=parameters.context, seed=0).to(device) for _ in range(2)
    )
    with tempfile.TemporaryDirectory() as name:
        windows, tokenizer = open_text(parameters.context, Path(name))
        weights = dict.fromkeys(windows, 1 / len(windows))
        stream = MixtureStream(windows, weights, batch_size=parameters.batch_size, seed=0)
        trainer = Trainer(
            TrainingState(own, NamedOptimizer(own, parameters), stream), parameters, Path(name), tokenizer
        )
        print(
            f"{arguments.preset} ({parameter_count(own):,} parameters) on {device.type}, {arguments.precision}, "
            f"{parameters.batch_size} x {parameters.context} tokens per step"
        )
        trained, bare = compare(trainer.train, bare_loop(bare_model, parameters), arguments, device)
        report(trained, bare, trainer.saving_seconds, parameters)


def report(trained: list[float], bare: list[float], saving: list[float], parameters: TrainParameters) -> None:
    """Print token rates, the cost of saving and the ratio."""
    steps = parameters.save_every_steps
    thousands = steps * parameters.tokens_per_step / 1e3
    rows = [
        [name, spread([thousands / one for one in times]), spread([1e3 * one / steps for one in times], "{:.1f}")]
        for name, times in (("trainer", trained), ("bare loop", bare))
    ]
    print_table(["loop", "thousand tokens/s: median (range)", "ms per step"], rows)
    ratios = [other / own for own, other in zip(trained, bare, strict=True)]
    print(f"trainer over bare loop: {spread(ratios)}")
    print(f"a resume point, one in {steps} steps, takes {spread([1e3 * one for one in saving], '{:.0f}')} ms")
    print_figures(
        {
            "over_bare_loop": statistics.median(ratios),
            "over_bare_loop_min": min(ratios),
            "over_bare_loop_max": max(ratios),
            "tokens_per_second": 1e3 * thousands / statistics.median(trained),
        }
    )


if __name__ == "__main__":
    main()
