"""How far the capacity model is off, on this machine.

    make bench NAME=capacity        (or: python benchmarks/capacity.py)

Three built-in sizes (or more: `--sizes`) are measured on random tokens, in one thread: the factors of K-FAC, the
gradients, and the matrix (eigendecompositions and products; without curvature, products alone). The rates of matrix
products, elementwise work and files are measured by themselves. What share of them the phases reach is taken from the
*other* sizes, the median of these, so that no size is predicted from itself; the factors have no constant of their own.
The benchmark does not begin above a load of `--load`. Where the machine is never quiet, `--processor-time` counts the
seconds of the processor, which other programs disturb less.

Figures: predicted over measured seconds, the worst of the sizes (`factors_worst`, ...: farthest from 1); the constants
over all sizes, for `tools/capacity/devices.py` (`peak_gflops`, `utilisation`, `float32_utilisation`, `eigen_gflops`,
`memory_gigabytes`, `write_gigabytes`, `read_gigabytes`).
"""

import argparse
import dataclasses
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from common import machine, print_figures, print_table

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `tools` lies

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.collect import collect_gradients
from tikmix_pipeline.influence.curvature.build import build_curvature
from tikmix_pipeline.influence.curvature.fit import fit_factors
from tikmix_pipeline.influence.gradients import deal_sets
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.model import build_model
from tikmix_pipeline.parameters import InfluenceParameters, ModelParameters, TrainParameters
from tools.capacity.costs import Workload
from tools.capacity.devices import DEVICES, Device
from tools.capacity.plan import Cluster, influence_phases
from tools.capacity.shape import DecoderShape, shape_of

SIZES = ("llama-1m", "llama-3m", "llama-10m")
VOCABULARY = 4096
WORKLOAD = Workload(
    domains=6, tasks=3, tokens=1024, context=32, items=32, item_tokens=64, factor_tokens=2048, parts=2,
    batch_tokens=4096, checkpointing=False, branches=0,
)  # fmt: skip
CONSTANT_OF = {"gradients": "utilisation", "products": "float32_utilisation", "eigendecompositions": "eigen_rate"}

Seconds = dict[str, float]
Clock = Callable[[], float]
clock: Clock = time.perf_counter


def batches(sequences: int, context: int, seed: int) -> list[TokenBatch]:
    """Draw random sequences, so many at a time as the workload says."""
    tokens = np.random.default_rng(seed).integers(0, VOCABULARY, (sequences, context + 1))
    at_once = WORKLOAD.batch_tokens // context
    return [TokenBatch.of_windows(tokens[start : start + at_once]) for start in range(0, sequences, at_once)]


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    start = clock()
    action()
    return clock() - start


def best(action: Callable[[], object], repetitions: int = 5) -> float:
    """Return the least seconds that an action takes."""
    return min(timed(action) for _ in range(repetitions))


def machine_rates(folder: Path) -> Device:
    """Measure the rates of matrix products, elementwise work and files, in one thread."""
    square, large = torch.rand(1536, 1536), torch.rand(4096, 4096)
    activations = torch.rand(1024, 1024)
    file, size = folder / "rate.safetensors", 4 * large.numel()
    rates = {
        "peak": 2 * 1536**3 / best(lambda: square @ square),
        "memory_rate": 8 * activations.numel() / best(lambda: activations.softmax(dim=1), 50),
        "write_rate": size / best(lambda: save_file({"values": large}, file)),
        "read_rate": size / best(lambda: np.fromfile(file, dtype=np.float32)),
    }
    file.unlink()
    return dataclasses.replace(DEVICES["cpu"], float32_peak=rates["peak"], **rates)


class Measurement:
    """The phases of a measurement with one model."""

    def __init__(self, preset: str) -> None:
        longest = max(WORKLOAD.context, WORKLOAD.item_tokens)
        parameters = ModelParameters(preset=preset)
        self.model = build_model(parameters, vocabulary_size=VOCABULARY, context=longest, seed=0).eval()
        self.shape: DecoderShape = shape_of(self.model.config.to_dict())
        items = {f"task{n}": batches(WORKLOAD.items, WORKLOAD.item_tokens, n) for n in range(WORKLOAD.tasks)}
        windows = WORKLOAD.tokens // WORKLOAD.context
        texts = {f"domain{n}": batches(windows, WORKLOAD.context, 50 + n) for n in range(WORKLOAD.domains)}
        self.sets = {
            "task": deal_sets("task", items, WORKLOAD.parts),
            "domain": deal_sets("domain", texts, WORKLOAD.parts),
        }

    def seconds(self, folder: Path) -> Seconds:
        """Run all phases once, from nothing."""
        store, kfac = GradientStore(folder / "gradients"), InfluenceParameters()
        text = batches(WORKLOAD.factor_tokens // WORKLOAD.context, WORKLOAD.context, 99)
        start = clock()
        factors = fit_factors(self.model, text, kind="kfac", fisher=kfac.fisher, seed=0, groups=kfac.groups)
        factors.save(folder / "factors")
        found = {"factors": clock() - start}
        found["gradients"] = timed(lambda: collect_gradients(self.model, self.sets, store, key=""))
        for parameters in (kfac, InfluenceParameters(curvature="identity")):
            start = clock()
            curvature = build_curvature(
                parameters, self.model, factors=factors, optimizer_state={}, train=TrainParameters(), horizon=None
            )
            built = clock() - start
            products = timed(lambda curvature=curvature: group_influence(store, curvature))
            if parameters is kfac:
                found |= {"eigendecompositions": built, "products": products, "matrix": built + products}
            else:
                found["matrix (identity)"] = built + products
        return found


def predicted(shape: DecoderShape, device: Device) -> Seconds:
    """Return the seconds of every phase by the model."""
    cluster = Cluster(device)
    found = {phase.name: phase.seconds for phase in influence_phases(shape, WORKLOAD, cluster, "kfac")}
    found["matrix"] = found["eigendecompositions"] + found["products"]
    identity = {phase.name: phase.seconds for phase in influence_phases(shape, WORKLOAD, cluster, "identity")}
    return found | {"matrix (identity)": identity["products"]}


def implied(phase: str, shape: DecoderShape, device: Device, measured: float) -> float:
    """Return the constant with which the model says what was measured: a prediction is a + b / constant."""
    constant = CONSTANT_OF[phase]
    at_one, at_two = (predicted(shape, dataclasses.replace(device, **{constant: by}))[phase] for by in (1.0, 0.5))
    by_constant = at_two - at_one
    return by_constant / max(measured - (at_one - by_constant), 1e-9)


def constants(points: Sequence[tuple[DecoderShape, Seconds]], device: Device) -> Mapping[str, float]:
    """Return the median of what the points imply."""
    return {
        constant: statistics.median(implied(phase, shape, device, seconds[phase]) for shape, seconds in points)
        for phase, constant in CONSTANT_OF.items()
    }


def calibrated(points: Sequence[tuple[DecoderShape, Seconds]], device: Device) -> Device:
    """Return the device with the constants of these points; a share above 1 is one."""
    found = {
        name: value if name == "eigen_rate" else min(value, 1.0) for name, value in constants(points, device).items()
    }
    return dataclasses.replace(device, **found)


def measure(sizes: Sequence[str], repetitions: int, folder: Path) -> dict[str, tuple[DecoderShape, Seconds]]:
    """Return shape and median seconds of every size."""
    found = {}
    for preset in sizes:
        measurement = Measurement(preset)
        runs = []
        for number in range(repetitions + 1):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                runs.append(measurement.seconds(Path(place)))
            print(f"{preset}, run {number}: {sum(runs[-1].values()):.1f} s", file=sys.stderr)
        # the first run fills caches and starts threads
        found[preset] = (
            measurement.shape,
            {phase: statistics.median(run[phase] for run in runs[1:]) for phase in runs[0]},
        )
    return found


def compared(
    points: Mapping[str, tuple[DecoderShape, Seconds]], device: Device
) -> tuple[list[list[str]], dict[str, float]]:
    """Return rows of predicted and measured seconds, and the worst ratio of every phase."""
    rows, worst = [], dict[str, float]()
    for preset, (shape, seconds) in points.items():
        others = [point for other, point in points.items() if other != preset]
        expected = predicted(shape, calibrated(others, device))
        for phase, measured in seconds.items():
            ratio = expected[phase] / measured
            of = f"{preset} ({shape.parameters / 1e6:.1f}M) {phase}"
            rows.append([of, f"{expected[phase]:.3f}", f"{measured:.3f}", f"{ratio:.2f}"])
            name = phase.replace(" (", "_").replace(")", "") + "_worst"
            worst[name] = max(worst.get(name, 1.0), ratio, key=lambda value: abs(math.log(value)))
    return rows, worst


def main() -> None:
    """Run the benchmark and print its table and figures."""
    global clock  # noqa: PLW0603
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--load", type=float, default=0.5, help="most load of the machine to begin at")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--processor-time", action="store_true", help="count seconds of the processor")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    if os.getloadavg()[0] > arguments.load:
        sys.exit(f"The machine is busy (load {os.getloadavg()[0]:.1f}). Wait, or raise --load.")
    torch.set_num_threads(1)
    print(machine("torch", "transformers"))
    with tempfile.TemporaryDirectory() as name:
        device = machine_rates(Path(name))
        points = measure(arguments.sizes, arguments.repetitions, Path(name))
    rows, worst = compared(points, device)
    print_table(["size and phase", "predicted s", "measured s", "ratio"], rows)
    found = constants(list(points.values()), device)
    print_figures(
        worst
        | {
            "peak_gflops": device.peak / 1e9,
            "utilisation": found["utilisation"],
            "float32_utilisation": found["float32_utilisation"],
            "eigen_gflops": found["eigen_rate"] / 1e9,
            "memory_gigabytes": device.memory_rate / 1e9,
            "write_gigabytes": device.write_rate / 1e9,
            "read_gigabytes": device.read_rate / 1e9,
        }
    )


if __name__ == "__main__":
    main()
