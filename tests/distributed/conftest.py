import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_examples import initial_checkpoint, train_parameters

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.distributed.sharding import RankTeam, joined
from tikmix_pipeline.lm.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def _one_thread(single_thread: None) -> None:
    """Every test of this room runs in one thread."""


@pytest.fixture
def start(token_shards: TokenShards, tmp_path: Path) -> Checkpoint:
    return initial_checkpoint(token_shards, tmp_path / "initial")


@pytest.fixture
def team_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[RankTeam]:
    """This very process as the only rank: all that ranks do, and nobody to wait for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": os.cpu_count() or 1}
    for name, value in {**values, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    with joined(train_parameters()) as team:
        yield team
