"""Peak memory of each stage of a measurement, by model size and by number of domains and tasks.

    make bench NAME=memory

Random weights of the built-in sizes, on the default corpus (which `kedro run --pipelines corpus` makes): memory depends
on shapes alone. Each stage runs in a process of its own; what it had before the stage, with the model loaded, is taken
off. Printed per stage: megabytes, and bytes per parameter beyond what activations take, as a line through the sizes;
from that line, the peak for `llama-1b`. If it did depend on the number of sets, the two rows of one size would differ.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from common import machine, peak_bytes, print_figures, print_table, run_alone

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = ("factors", "gradients", "matrix")
SIZES = {"llama-1m": (3, 7), "llama-3m": (3, 7), "llama-10m": (3, 7), "llama-50m": (3,)}
"""Domains measured by size; the largest has few, for its gradients are large on disk."""
PARTS, SEQUENCES, CONTEXT = 2, 4, 32
MEMORY_MEGABYTES = 200.0


def run_stage(stage: str, size: str, domains: int, folder: Path) -> dict[str, float]:
    """Run one stage in this process; return its peak in MB above the loaded model, and the model's parameters."""
    import torch

    from tikmix_pipeline.corpus.batches import TokenBatch
    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.influence.collect import collect_gradients
    from tikmix_pipeline.influence.curvature.build import build_curvature
    from tikmix_pipeline.influence.curvature.factors import Factors
    from tikmix_pipeline.influence.curvature.fit import fit_factors
    from tikmix_pipeline.influence.gradients import deal_sets
    from tikmix_pipeline.influence.group import group_influence
    from tikmix_pipeline.influence.store import GradientStore
    from tikmix_pipeline.lm.model import build_model
    from tikmix_pipeline.parameters import InfluenceParameters, ModelParameters, TrainParameters

    shards = TokenShards.open(REPOSITORY / "data" / "03_primary" / "default", verify=False)
    model = build_model(ModelParameters(preset=size), vocabulary_size=shards.vocabulary_size, context=256, seed=0)
    batches = {
        domain: [TokenBatch.of_windows(shards.windows(domain, CONTEXT).take(np.arange(SEQUENCES)))]
        for domain in shards.domains[:domains]
    }
    # domains stand for tasks too: two thirds as many
    sets = {
        "domain": deal_sets("domain", batches, PARTS),
        "task": deal_sets("task", dict(list(batches.items())[: -(-2 * domains // 3)]), PARTS),
    }
    parameters = InfluenceParameters(damping=0.1, damping_unit="relative")
    store = GradientStore(folder / "gradients")
    torch.zeros(1).requires_grad_().sum().backward()  # the engine's own start
    before = peak()
    if stage == "factors":
        fitted = fit_factors(
            model, next(iter(batches.values())), kind="kfac", fisher="true", seed=0, groups=parameters.groups
        )
        fitted.save(folder / "factors")
    elif stage == "gradients":
        collect_gradients(model, sets, store, key=size)
    else:
        curvature = build_curvature(
            parameters,
            model,
            factors=Factors.load(folder / "factors"),
            optimizer_state={},
            train=TrainParameters(),
            horizon=None,
        )
        group_influence(store, curvature, memory_megabytes=MEMORY_MEGABYTES)
    return {"megabytes": peak() - before, "parameters": sum(p.numel() for p in model.parameters())}


def peak() -> float:
    """Return the largest resident memory of this process so far, in MB of 2^20 bytes."""
    return peak_bytes() / 2**20


def parameters_of_1b() -> int:
    """Count the parameters of `llama-1b` with a vocabulary of 128k, without their memory."""
    import torch

    from tikmix_pipeline.lm.model import build_model
    from tikmix_pipeline.parameters import ModelParameters

    with torch.device("meta"):
        model = build_model(ModelParameters(preset="llama-1b"), vocabulary_size=128_000, context=256, seed=0)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Measure every stage at every size and print the table, the lines and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", nargs=4, metavar=("STAGE", "SIZE", "DOMAINS", "FOLDER"), help="run by this script")
    options = parser.parse_args()
    if options.stage:
        stage, size, domains, folder = options.stage
        print(json.dumps(run_stage(stage, size, int(domains), Path(folder))))
        return
    print(machine("torch"))
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for size, counts in SIZES.items():
        for domains in counts:
            with tempfile.TemporaryDirectory() as folder:
                for stage in STAGES:
                    found[stage, size, domains] = run_alone(__file__, "--stage", stage, size, str(domains), folder)
    rows = [
        [size, f"{found['factors', size, domains]['parameters'] / 1e6:.2f}", str(domains)]
        + [f"{found[stage, size, domains]['megabytes']:.0f}" for stage in STAGES]
        for size, counts in SIZES.items()
        for domains in counts
    ]
    print_table(["size", "million parameters", "domains", *(f"{stage} MB" for stage in STAGES)], rows)
    figures, largest = {}, parameters_of_1b()
    for stage in STAGES:
        points = [value for (of, _, _), value in found.items() if of == stage]
        slope, offset = np.polyfit([p["parameters"] for p in points], [p["megabytes"] * 2**20 for p in points], 1)
        figures[f"{stage}_bytes_per_parameter"] = slope
        figures[f"{stage}_gigabytes_1b"] = (slope * largest + offset) / 1e9
    print_figures(figures)


if __name__ == "__main__":
    main()
