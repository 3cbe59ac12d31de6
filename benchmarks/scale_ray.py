"""Lookahead branches on Ray: what two workers save, and what a node that is killed costs.

    make bench NAME=scale_ray        (or: python benchmarks/scale_ray.py)

16 short branches of the size that `sweep` trains by default, each under a mixture of its own, from one checkpoint: one
worker in this process, the local pool of two, Ray on this machine with two, and a Ray cluster of two node processes, of
which one is killed after four branches. All have to end with the same losses, and no finished branch may be trained
again. Times are from the call to the result: the start of this machine's Ray and of its processes is part of them.

Figures: `ray_over_one_worker` and `pool_over_one_worker`, times over that of one worker; `killed_over_one_worker`;
`different_results`, `trained_again`: both have to be 0.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import machine, print_figures, print_table
from tikmix_pipeline.baselines.baseline import save_initial
from tikmix_pipeline.corpus.records import PreparedText
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import Item
from tikmix_pipeline.corpus.tokenizer import train_tokenizer
from tikmix_pipeline.corpus.writing import write_corpus
from tikmix_pipeline.lm.branch_pool import Branch, BranchResult, BranchSetting, run_branches
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.parameters import CorpusParameters, EngineParameters, ModelParameters, TrainParameters

DOMAINS = ("web", "code", "books", "papers")
WORDS = 600_000
BRANCHES = 16
KILLED_AFTER = 4
ITEM = Item("a corpus has a task?", "yes.")
LOCAL = EngineParameters()


def random_corpus(folder: Path) -> TokenShards:
    """Write words at random, other ones in each domain."""
    generator = np.random.default_rng(0)
    texts = {}
    for domain in DOMAINS:
        words = np.array(["".join(generator.choice(list("abcdefghijklmnopqrst"), size=5)) for _ in range(400)])
        texts[domain] = [" ".join(generator.choice(words, size=500)) for _ in range(WORDS // 500)]
    documents = {domain: {"train": found[20:], "heldout": found[:20]} for domain, found in texts.items()}
    source = {"sources": [{"kind": "files", "path": "none.jsonl"}]}
    parameters = CorpusParameters.model_validate(
        {"name": "random", "domains": dict.fromkeys(DOMAINS, source), "tasks": {"none": source}}
    )
    tokenizer = train_tokenizer((text for found in texts.values() for text in found[:50]), 2048)
    return write_corpus(
        parameters,
        PreparedText(documents, {"none": {"query": [ITEM], "evaluation": [ITEM]}}),
        tokenizer,
        folder,
        folder / "random",
    )


@dataclass(frozen=True)
class Work:
    """What every engine is given."""

    setting: BranchSetting
    branches: Sequence[Branch]
    texts: Mapping[str, Any]
    folder: Path

    def done_by(self, name: str, workers: int, engine: EngineParameters) -> tuple[list[BranchResult], float]:
        """Return the results, and the seconds they took."""
        start = time.perf_counter()
        results = run_branches(
            self.setting,
            self.branches,
            self.texts,
            folder=self.folder / name,
            key="benchmark",
            workers=workers,
            engine=engine,
        )
        seconds = time.perf_counter() - start
        print(f"{name}: {seconds:.1f} s", flush=True)
        return results, seconds

    def made(self, name: str) -> dict[str, int]:
        """Return when each result of an engine was written."""
        return {file.name: file.stat().st_mtime_ns for file in (self.folder / name).glob("*.json")}


def prepare(folder: Path, tokens: int) -> Work:
    """Write a corpus and a checkpoint, and say what is trained from it."""
    from tikmix_pipeline.corpus.batches import TokenBatch

    shards, model = random_corpus(folder / "corpus"), ModelParameters()
    train = TrainParameters(device="cpu")
    save_initial(model, shards, folder / "checkpoint", context=train.context, seed=0)
    steps = -(-tokens // train.tokens_per_step)
    setting = BranchSetting(folder / "checkpoint", shards.folder, steps, model, train, Schedule.of(train, 3), 0)
    mixtures = np.random.default_rng(1).dirichlet(np.ones(len(DOMAINS)), size=BRANCHES).tolist()
    branches = [Branch(str(run), dict(zip(DOMAINS, weights, strict=True))) for run, weights in enumerate(mixtures)]
    windows = {domain: shards.windows(domain, train.context, "heldout") for domain in DOMAINS}
    texts = {domain: [TokenBatch.of_windows(found.take(np.arange(16)))] for domain, found in windows.items()}
    return Work(setting, branches, texts, folder / "results")


@contextmanager
def two_nodes() -> Iterator[tuple[str, Callable[[], None]]]:
    """Start a cluster of two node processes with a core each; yield its address, and what kills the second."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    try:
        yield cluster.address, lambda: cluster.remove_node(second, allow_graceful=False)
    finally:
        cluster.shutdown()


def with_a_killed_node(work: Work) -> tuple[list[BranchResult], float, int]:
    """Return results, seconds, and how many finished branches were trained again."""
    finished: dict[str, int] = {}

    def watch() -> None:
        while len(found := work.made("killed")) < KILLED_AFTER:
            time.sleep(0.05)
        finished.update(found)
        kill()

    with two_nodes() as (address, kill):
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        results, seconds = work.done_by("killed", BRANCHES, EngineParameters(kind="ray", address=address))
        watcher.join()
    made = work.made("killed")
    return results, seconds, sum(made.get(name) != when for name, when in finished.items())


def main() -> None:
    """Time the engines, print a table, and say whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=81_920, help="of a branch")
    options = parser.parse_args()
    print(machine("torch", "ray"))
    with tempfile.TemporaryDirectory() as scratch:
        work = prepare(Path(scratch), options.tokens)
        expected, alone = work.done_by("one", 1, LOCAL)
        pool = work.done_by("pool", 2, LOCAL)
        ray = work.done_by("ray", 2, EngineParameters(kind="ray"))
        killed, seconds, again = with_a_killed_node(work)
    times = {"one worker": alone, "local pool of 2": pool[1], "Ray, 2 workers": ray[1], "Ray, node killed": seconds}
    rows = [[name, f"{taken:.1f}", f"{taken / alone:.2f}"] for name, taken in times.items()]
    print_table(["", "seconds", "over one worker"], rows)
    print_figures(
        {
            "ray_over_one_worker": ray[1] / alone,
            "pool_over_one_worker": pool[1] / alone,
            "killed_over_one_worker": seconds / alone,
            "different_results": sum(found != expected for found in (pool[0], ray[0], killed)),
            "trained_again": again,
        }
    )


if __name__ == "__main__":
    main()
