"""`remix` of SmolLM2-135M on the default corpus and tasks: time, memory, disk; plain passes and an older commit beside.

    make bench NAME=real_model

makes the checkpoint of `examples/smollm2.py` in `smollm2`, if it is not there yet, and takes, one after the other:

1. `remix` as `conf/smollm2` has it, 8,192 tokens a domain and 48 items a task, with its gradients streamed: `seconds`,
   its peak of resident memory (`peak_gigabytes`), and the most that its experiment had on disk (`disk_gigabytes`; the
   checkpoint, which is linked to, is not counted);
2. the streamed gradient stage with the identity for a curvature, on `--sample` tokens of `--sample-domains` domains and
   48 items of every task, plain forward and backward passes of full batches before and after it in the same process:
   `over_plain_pass` is its seconds a token over theirs. More domains lower it: a task's chunk is shorter, and written;
3. `remix` of this commit and of `--baseline`, in turns: `speedup` is how many times faster it has become, at full size,
   or on fewer tokens (`--pair-tokens`, `--pair-items`), where what does not depend on them weighs more.

Parts 1 to 3 take some 20, 6 and 40 minutes on two cores; `--parts` names those to run.
"""

import argparse
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import machine, print_figures, print_table, run_alone
from project import REPOSITORY, kedro_run, scratch_project

CHECKPOINT = REPOSITORY / "smollm2"
EXPERIMENT = "smollm2"


def main() -> None:
    """Run the parts asked for and print what they took."""
    parser = argparse.ArgumentParser(description="Measure SmolLM2-135M.")
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sample", type=int, default=8192, help="tokens of each domain for the gradient stage")
    parser.add_argument("--sample-domains", type=int, default=2, help="domains for the gradient stage")
    parser.add_argument("--pair-tokens", type=int, default=8192)
    parser.add_argument("--pair-items", type=int, default=48)
    parser.add_argument("--baseline", default="a88be1c", help="the older commit")
    parser.add_argument("--repetitions", type=int, default=1, help="of the pairs")
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print_figures(time_stage(arguments.stage, arguments.sample, arguments.sample_domains))
        return
    print(machine("torch", "transformers"))
    subprocess.run([sys.executable, REPOSITORY / "examples" / "smollm2.py", CHECKPOINT], check=True)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        project = project_with_model(Path(temporary) / "project", REPOSITORY)
        if 1 in arguments.parts or 2 in arguments.parts:
            run_remix(project, "corpus")  # so that no part pays for the downloads
        if 1 in arguments.parts:
            figures |= run_remix(project, "remix", "influence.gradients=stream")
        if 2 in arguments.parts:
            sample = ["--sample", str(arguments.sample), "--sample-domains", str(arguments.sample_domains)]
            stage = run_alone(__file__, "--stage", str(project), *sample)
            print_table(["", "tokens/s"], [[name, f"{rate:.1f}"] for name, rate in stage.items() if "_per_" in name])
            figures["over_plain_pass"] = stage["over_plain_pass"]
        if 3 in arguments.parts:
            figures |= pairs(Path(temporary), arguments)
    print_figures(figures)


def project_with_model(folder: Path, source: Path) -> Path:
    """Lay out a project with the configuration of a checkout, and the environment of this one."""
    scratch_project(folder)
    shutil.rmtree(folder / "conf")
    shutil.copytree(source / "conf", folder / "conf")
    shutil.copytree(REPOSITORY / "conf" / "smollm2", folder / "conf" / "smollm2", dirs_exist_ok=True)
    (folder / "smollm2").symlink_to(CHECKPOINT)
    return folder


def run_remix(project: Path, pipeline: str, *told: str) -> dict[str, float]:
    """Run a pipeline in a process of its own; return its seconds, its peak of memory and the disk it took."""
    sizes: list[int] = []
    start = time.perf_counter()
    options = ["--params", ",".join(told)] if told else []
    with watching(project / "data" / "07_model_output" / EXPERIMENT, sizes):
        run = kedro_run(project, "--env", "smollm2", "--pipelines", pipeline, *options)
        _, status, usage = os.wait4(run.pid, 0)
    if status:
        raise SystemExit(f"{pipeline} failed.")
    return {
        "seconds": time.perf_counter() - start,
        "peak_gigabytes": usage.ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6),
        "disk_gigabytes": max(sizes, default=0) / 1e9,
    }


@contextmanager
def watching(folder: Path, sizes: list[int]) -> Iterator[None]:
    """Append the bytes that a folder takes, twice a second, links not followed."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            sizes.append(sum(bytes_of(path) for path in folder.rglob("*")))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def bytes_of(path: Path) -> int:
    """Return what a file takes; nothing of a link, or of what has just gone."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return 0 if path.is_symlink() else status.st_blocks * 512


def time_stage(project: Path, tokens: int, domains: int) -> dict[str, float]:
    """Time plain passes, the gradient stage and plain passes again, in this process."""
    import torch

    from tikmix_pipeline.corpus.batches import TokenBatch
    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.influence.curvature.build import build_curvature
    from tikmix_pipeline.influence.samples import MeasuredText
    from tikmix_pipeline.influence.streamed import stream_influence
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.loss import summed_loss
    from tikmix_pipeline.parameters import InfluenceParameters, TrainParameters
    from tikmix_pipeline.parameters.training import LoadParameters

    shards = TokenShards.open(project / "data" / "03_primary" / EXPERIMENT, verify=False)
    influence = InfluenceParameters(tokens=tokens, items_per_task=48, batch_size=2, curvature="identity")
    train = TrainParameters(batch_size=8, context=128)
    text = MeasuredText.open(Checkpoint(CHECKPOINT), shards, LoadParameters(), train, influence, seed=0)
    some = dict(itertools.islice(text.domain_chunks().items(), domains))
    sets = {"task": text.target_chunks(), "domain": some}
    batches = [batch for side in sets.values() for chunks in side.values() for one in chunks for batch in one]
    full = TokenBatch.of_windows(text.stream.upcoming(shards.domains[0], 8)[:, :33])

    def plain(passes: int) -> float:
        start = time.perf_counter()
        for _ in range(passes):
            loss, _ = summed_loss(text.model, full)
            loss.backward()
            text.model.zero_grad(set_to_none=True)
        return (time.perf_counter() - start) / (passes * full.loss_tokens)

    plain(1)
    before = plain(6)
    curvature = build_curvature(influence, text.model, factors=None, optimizer_state={}, train=train, horizon=None)
    with tempfile.TemporaryDirectory(dir=project) as folder:
        start = time.perf_counter()
        stream_influence(text.model, sets, curvature, Path(folder), key="benchmark", memory_megabytes=500)
        seconds = time.perf_counter() - start
    read = sum(batch.loss_tokens for batch in batches)
    after = plain(6)
    return {
        "plain_tokens_per_second": 2 / (before + after),
        "stage_tokens_per_second": read / seconds,
        "over_plain_pass": seconds / read / statistics.mean([before, after]),
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "threads": torch.get_num_threads(),
    }


def pairs(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Let this commit and the baseline take turns on less text."""
    checkout = folder / "baseline"
    subprocess.run(["git", "-C", REPOSITORY, "worktree", "add", "--detach", checkout, arguments.baseline], check=True)
    told = [f"influence.tokens={arguments.pair_tokens}", f"influence.items_per_task={arguments.pair_items}"]
    told.append(f"influence.factor_tokens={min(8192, 2 * arguments.pair_tokens)}")
    found: list[dict[str, dict[str, float]]] = []
    try:
        for number in range(arguments.repetitions):
            pair: dict[str, dict[str, float]] = {}
            for name, source in (("now", REPOSITORY), ("baseline", checkout)):
                project = project_with_model(folder / f"{name}-{number}", source)
                with imported_from(source):
                    pair[name] = run_remix(project, "remix", *told)
                shutil.rmtree(project)  # the baseline's gradients are as large as a small disk
                print(f"{name}: {pair[name]}", flush=True)
            found.append(pair)
    finally:
        subprocess.run(["git", "-C", REPOSITORY, "worktree", "remove", "--force", checkout], check=True)
    rows = [
        [name, *(f"{pair[name][figure]:.4g}" for figure in ("seconds", "peak_gigabytes", "disk_gigabytes"))]
        for pair in found
        for name in pair
    ]
    print_table(["", "seconds", "peak, GB", "disk, GB"], rows)
    return {"speedup": statistics.median(pair["baseline"]["seconds"] / pair["now"]["seconds"] for pair in found)}


@contextmanager
def imported_from(checkout: Path) -> Iterator[None]:
    """Let processes that are started import the package of a checkout."""
    before: Any = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(checkout / "src")
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
