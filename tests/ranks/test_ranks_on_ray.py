"""Ranks on a real Ray cluster of two node processes: `pip install -e ".[dev,ray]"`."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from lm_examples import FIRST, MODEL, train_parameters

from tikmix_pipeline.lm.chunk import train_chunk
from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.ranks.ray_launch import main
from tikmix_pipeline.ranks.training import Training, prepare

pytest.importorskip("ray", reason="needs the extra [ray]")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def test_a_rank_on_each_of_two_nodes_trains_what_one_process_trains(start, token_shards, tmp_path, address):
    train = train_parameters(world_size=2)
    schedule, folder = Schedule.of(train, 1), tmp_path / "resume"
    job = Training(start.folder, token_shards.folder, FIRST, MODEL, train, schedule, 0, "On Ray")
    prepare(job, None, lambda write: write(folder))
    result = CliRunner().invoke(main, [str(folder), "--nodes", "2", "--address", address, "--host", "127.0.0.1"])
    assert result.exit_code == 0, result.output
    arguments = {"model": MODEL, "train": train_parameters(), "schedule": schedule, "seed": 0}
    together = train_chunk(start, token_shards, FIRST, **arguments, resume=folder)
    alone = train_chunk(start, token_shards, FIRST, **arguments)
    assert [record.loss for record in together.records] == pytest.approx([r.loss for r in alone.records], abs=1e-6)


def test_ranks_that_cannot_be_dealt_to_the_nodes_are_refused(start, token_shards, tmp_path):
    train = train_parameters(world_size=2)
    job = Training(start.folder, token_shards.folder, FIRST, MODEL, train, Schedule.of(train, 1), 0, "")
    prepare(job, None, lambda write: write(tmp_path / "resume"))
    result = CliRunner().invoke(main, [str(tmp_path / "resume"), "--nodes", "3"])
    assert result.exit_code == 1
    assert "train.world_size=2 is no multiple" in result.output
