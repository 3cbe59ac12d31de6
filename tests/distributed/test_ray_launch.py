"""Ranks on a real Ray cluster of two node processes: `pip install -e ".[dev,ray]"`."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lm_examples import FIRST, MODEL, train_parameters

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.ray_launch import main
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.chunk import train_chunk
from tikmix_pipeline.lm.resume import points_in
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.parameters import TrainParameters
from tikmix_pipeline.store.keyed import KeyedEntry

pytest.importorskip("ray", reason="needs the extra [ray]")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.second = cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def lay_out_job(start: Checkpoint, shards: TokenShards, train: TrainParameters, folder: Path) -> None:
    """Make what a launcher is given; the one that `train.launch` names does nothing."""
    idle = train.model_copy(update={"launch": "true {folder}"})
    schedule = Schedule.of(train, 1)
    with pytest.raises(TikmixError, match="ended without a result"):
        train_chunk(
            start,
            shards,
            FIRST,
            model=MODEL,
            train=idle,
            schedule=schedule,
            seed=0,
            resume=KeyedEntry(folder, "key"),
        )


def on_two_nodes(folder: Path, cluster: Any) -> Any:
    arguments = [str(folder), "--nodes", "2", "--address", cluster.address, "--host", "127.0.0.1"]
    return CliRunner().invoke(main, arguments)


def test_a_rank_on_each_of_two_nodes_trains_what_one_process_trains(start, token_shards, tmp_path, cluster):
    train = train_parameters(world_size=2)
    schedule, folder = Schedule.of(train, 1), tmp_path / "resume"
    lay_out_job(start, token_shards, train, folder)
    result = on_two_nodes(folder, cluster)
    assert result.exit_code == 0, result.output
    arguments = {"model": MODEL, "train": train_parameters(), "schedule": schedule, "seed": 0}
    together = train_chunk(start, token_shards, FIRST, **arguments, resume=KeyedEntry(folder, "key"))
    alone = train_chunk(start, token_shards, FIRST, **arguments)
    assert [record.loss for record in together.records] == pytest.approx([r.loss for r in alone.records], abs=1e-6)


def test_a_node_that_is_lost_is_told_and_what_was_done_is_kept(start, token_shards, tmp_path, cluster):
    train = train_parameters(world_size=2, chunk_tokens=64 * 100_000, save_every_steps=50)  # longer than anyone waits
    folder = tmp_path / "resume"
    lay_out_job(start, token_shards, train, folder)

    def kill() -> None:
        while not points_in(folder):
            time.sleep(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    result = on_two_nodes(folder, cluster)
    killer.join()
    assert result.exit_code == 1
    assert "A node was lost: its node died. What was done is kept" in result.output
    assert points_in(folder)


def test_ranks_that_cannot_be_dealt_to_the_nodes_are_refused(start, token_shards, tmp_path):
    train = train_parameters(world_size=2)
    lay_out_job(start, token_shards, train, tmp_path / "resume")
    result = CliRunner().invoke(main, [str(tmp_path / "resume"), "--nodes", "3"])
    assert result.exit_code == 1
    assert "train.world_size=2 is no multiple" in result.output
