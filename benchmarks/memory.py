"""Peak memory and disk of each stage of a measurement, by model size and vocabulary, beside what `tools.capacity` says.

    make bench NAME=memory        (or: python benchmarks/memory.py --sizes llama-10m --vocabularies 2048)

Random weights and random token ids: memory depends on shapes alone. Two domains and two tasks in two chunks each, 512
tokens per pass in sequences of 32, K-FAC, `influence.memory_megabytes` as it comes. Each stage runs in a process of its
own:

| stage | |
|---|---|
| factors | K-FAC fitted, and written |
| keep | gradients of tasks and domains, written in float32 |
| matrix | kept gradients through the curvature; of the model its shapes alone are there |
| stream | gradients of the tasks written and multiplied, those of the domains multiplied as they come |

Printed, in MB of 10^6 bytes, are the peak above the libraries and the loaded model, above the libraries alone, and in
all; what `tools.capacity` predicts for the second of these; and the most that the stage had on disk, measured and
predicted. Figures: predicted over measured by stage, the worst of all models (`keep_memory_worst`, ...: farthest from
1), and the largest of all models (`peak_gigabytes`, `keep_disk_gigabytes`, `stream_disk_gigabytes`).
"""

import argparse
import contextlib
import json
import math
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common import machine, peak_bytes, print_figures, print_table, restart_peak, run_alone

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `tools` lies

from tikmix_pipeline.lm.presets import PRESETS, Preset
from tools.capacity.costs import Workload
from tools.capacity.devices import DEVICES
from tools.capacity.plan import Cluster, Keeping, influence_phases
from tools.capacity.shape import DecoderShape

if TYPE_CHECKING:
    from torch import nn

    from tikmix_pipeline.corpus.batches import TokenBatch
    from tikmix_pipeline.influence.curvature.build import Curvature
    from tikmix_pipeline.parameters import InfluenceParameters

SIZES = {
    "llama-10m": PRESETS["llama-10m"],
    "llama-50m": PRESETS["llama-50m"],
    "smollm2": Preset(width=576, layers=30, heads=9, key_value_heads=3, feed_forward=1536, tied_embeddings=True),
}
"""`smollm2` is the shape of SmolLM2-135M."""
VOCABULARIES = (2_048, 49_152)
STAGES = ("factors", "keep", "matrix", "stream")
CONTEXT = 32
LOOKING_SECONDS = 0.05


class Measured(NamedTuple):
    """Bytes that a stage took."""

    libraries: float
    """Resident before the model was there, after a measurement of next to nothing."""
    loaded: float
    peak: float
    disk: float

    @property
    def above_libraries(self) -> float:
        """Bytes of the model and of the stage."""
        return self.peak - self.libraries


def run_stage(stage: str, size: str, vocabulary: int, tokens: int, folder: Path) -> dict[str, float]:
    """Run one stage in this process; return resident bytes: of the libraries, with the model loaded, at the peak."""
    with tempfile.TemporaryDirectory() as place:
        of_nothing = Preset(width=8, layers=1, heads=2, key_value_heads=1, feed_forward=16, tied_embeddings=True)
        for before in dict.fromkeys(["factors", "keep", stage] if stage != "factors" else ["factors"]):
            perform(before, build(of_nothing, 32, weightless=before == "matrix"), workload(64), 32, Path(place))
    libraries = resident_bytes()
    model = build(SIZES[size], vocabulary, weightless=stage == "matrix")
    loaded = resident_bytes()
    restart_peak()
    perform(stage, model, workload(tokens), vocabulary, folder)
    return {"libraries": libraries, "loaded": loaded, "peak": peak_bytes()}


def perform(stage: str, model: "nn.Module", work: Workload, vocabulary: int, folder: Path) -> None:
    """Run one stage of the measurement of a model, with its results under `folder`."""
    from tikmix_pipeline.influence.collect import collect_gradients
    from tikmix_pipeline.influence.curvature.fit import fit_factors
    from tikmix_pipeline.influence.gradients import deal_sets
    from tikmix_pipeline.influence.group import group_influence
    from tikmix_pipeline.influence.store import GradientStore
    from tikmix_pipeline.influence.streamed import stream_influence
    from tikmix_pipeline.parameters import InfluenceParameters

    parameters = InfluenceParameters()
    domains = {f"domain{number}": text(vocabulary, work, number) for number in range(work.domains)}
    tasks = {f"task{number}": text(vocabulary, work, work.domains + number) for number in range(work.tasks)}
    sets = {"domain": deal_sets("domain", domains, work.parts), "task": deal_sets("task", tasks, work.parts)}
    kept, megabytes = GradientStore(folder / "keep"), parameters.memory_megabytes
    if stage == "factors":
        read = domains["domain0"]
        found = fit_factors(model, read, kind="kfac", fisher=parameters.fisher, seed=0, groups=parameters.groups)
        found.save(folder / "factors")
    elif stage == "keep":
        collect_gradients(model, sets, kept, key="")
    elif stage == "matrix":
        group_influence(kept, curvature_of(model, parameters, folder), memory_megabytes=megabytes)
    else:
        curvature = curvature_of(model, parameters, folder)
        stream_influence(model, sets, curvature, folder / "stream", key="", memory_megabytes=megabytes)


def workload(tokens: int) -> Workload:
    """Return what is measured, with so many tokens per pass."""
    return Workload(
        domains=2, tasks=2, parts=2, tokens=2 * tokens, context=CONTEXT, items=2 * tokens // CONTEXT,
        item_tokens=CONTEXT, factor_tokens=2 * tokens, pass_tokens=tokens, branches=0,
    )  # fmt: skip


def text(vocabulary: int, work: Workload, seed: int) -> "list[TokenBatch]":
    """Draw random sequences, in batches of the tokens per pass."""
    import numpy as np

    from tikmix_pipeline.corpus.batches import TokenBatch

    at_once = work.pass_tokens // work.context
    tokens = np.random.default_rng(seed).integers(0, vocabulary, (work.tokens // work.context, work.context + 1))
    return [TokenBatch.of_windows(tokens[start : start + at_once]) for start in range(0, len(tokens), at_once)]


def build(of: Preset, vocabulary: int, *, weightless: bool) -> "nn.Module":
    """Build a model of random weights, or of none."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=of.width,
        num_hidden_layers=of.layers,
        num_attention_heads=of.heads,
        num_key_value_heads=of.key_value_heads,
        intermediate_size=of.feed_forward,
        tie_word_embeddings=of.tied_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        use_cache=False,
    )
    with torch.device("meta" if weightless else "cpu"):
        model: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model


def curvature_of(model: "nn.Module", parameters: "InfluenceParameters", folder: Path) -> "Curvature":
    """Build the curvature of the factors that the first stage wrote."""
    import torch

    from tikmix_pipeline.influence.curvature.build import build_curvature
    from tikmix_pipeline.influence.curvature.factors import Factors
    from tikmix_pipeline.parameters import TrainParameters

    return build_curvature(
        parameters,
        model,
        factors=Factors.load(folder / "factors"),
        optimizer_state={},
        train=TrainParameters(),
        horizon=None,
        device=torch.device("cpu"),
    )


def measure(size: str, vocabulary: int, tokens: int) -> dict[str, Measured]:
    """Run the stages of one model, each in a process of its own."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stage in STAGES:
            with largest_size(folder / stage) as largest:
                bytes_ = run_alone(__file__, "--stage", stage, size, str(vocabulary), str(tokens), name)
            found[stage] = Measured(**bytes_, disk=max(largest))
            if stage == "matrix":
                shutil.rmtree(folder / "keep")
    return found


@contextlib.contextmanager
def largest_size(folder: Path) -> Iterator[list[float]]:
    """Look again and again, during the body, how many bytes the files of a folder take on the disk."""
    found, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(LOOKING_SECONDS):
            found.append(bytes_on_disk(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
        found.append(bytes_on_disk(folder))


def bytes_on_disk(folder: Path) -> float:
    """Return the bytes that the files of a folder take, of files with holes without these."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
            total += 512 * path.lstat().st_blocks
    return float(total)


def resident_bytes() -> int:
    """Return the resident memory of this process now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


def predicted(size: str, vocabulary: int, tokens: int) -> dict[str, tuple[float, float]]:
    """Return the bytes of memory, with the model and without the libraries, and of disk of every stage."""
    of = SIZES[size]
    shape = DecoderShape(
        layers=of.layers, width=of.width, feed_forward=of.feed_forward, heads=of.heads,
        key_value_heads=of.key_value_heads, vocabulary=vocabulary, tied=of.tied_embeddings,
    )  # fmt: skip
    place = shape, workload(tokens), Cluster(DEVICES["cpu"]), "kfac"
    kept = {phase.name: phase for phase in influence_phases(*place, Keeping("keep"))}
    streamed = {phase.name: phase for phase in influence_phases(*place, Keeping("stream"))}
    streaming = max(phase.memory for name, phase in streamed.items() if name != "factors")
    return {
        "factors": (kept["factors"].memory, kept["factors"].disk),
        "keep": (kept["gradients"].memory, kept["gradients"].disk),
        "matrix": (max(kept[name].memory for name in ("eigendecompositions", "products")), 0.0),
        "stream": (streaming, streamed["gradients"].disk),
    }


HEADER = ("model, vocabulary: stage", "above the model", "with it", "in all", "predicted", "disk", "predicted")


def compared(of: str, found: Mapping[str, Measured], expected: Mapping[str, tuple[float, float]]) -> list[list[str]]:
    """Return a row for every stage: MB in memory, and on disk."""
    rows = []
    for stage, measured in found.items():
        memory, disk = expected[stage]
        sizes = (measured.peak - measured.loaded, measured.above_libraries, measured.peak, memory)
        on_disk = (measured.disk, disk) if disk else ()
        cells = [f"{size / 1e6:,.0f}" for size in (*sizes, *on_disk)]
        rows.append([f"{of}: {stage}", *cells, *([] if disk else ["-", "-"])])
    return rows


def main() -> None:
    """Measure every stage of every model, and print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--vocabularies", nargs="+", type=int, default=list(VOCABULARIES))
    parser.add_argument("--tokens", type=int, default=512, help="per pass")
    parser.add_argument(
        "--stage", nargs=5, metavar=("STAGE", "SIZE", "VOCABULARY", "TOKENS", "FOLDER"), help="run by this script"
    )
    options = parser.parse_args()
    if options.stage:
        stage, size, vocabulary, tokens, folder = options.stage
        print(json.dumps(run_stage(stage, size, int(vocabulary), int(tokens), Path(folder))))
        return
    print(machine("torch", "transformers"))
    rows, figures = list[list[str]](), dict[str, float]()
    for size in options.sizes:
        for vocabulary in options.vocabularies:
            found, expected = measure(size, vocabulary, options.tokens), predicted(size, vocabulary, options.tokens)
            rows += compared(f"{size}, {vocabulary:,}", found, expected)
            note(figures, found, expected)
            print(f"{size}, {vocabulary}: done", file=sys.stderr)
    print_table(HEADER, rows)
    print_figures(figures)


def note(figures: dict[str, float], found: Mapping[str, Measured], expected: Mapping[str, tuple[float, float]]) -> None:
    """Keep the ratios that are farthest from 1, and the largest peaks."""
    for stage, measured in found.items():
        memory, disk = expected[stage]
        ratios = {f"{stage}_memory_worst": memory / measured.above_libraries}
        if disk:
            ratios[f"{stage}_disk_worst"] = disk / measured.disk
        for name, ratio in ratios.items():
            figures[name] = max(figures.get(name, 1.0), ratio, key=lambda value: abs(math.log(value)))
    for name, value in (
        ("peak_gigabytes", max(measured.peak for measured in found.values())),
        ("keep_disk_gigabytes", found["keep"].disk),
        ("stream_disk_gigabytes", found["stream"].disk),
    ):
        figures[name] = max(figures.get(name, 0.0), value / 1e9)


if __name__ == "__main__":
    main()
