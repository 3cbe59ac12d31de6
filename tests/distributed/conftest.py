from pathlib import Path

import pytest
from lm_examples import initial_checkpoint

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.lm.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def _one_thread(single_thread: None) -> None:
    """Every test of this room runs in one thread."""


@pytest.fixture
def start(token_shards: TokenShards, tmp_path: Path) -> Checkpoint:
    return initial_checkpoint(token_shards, tmp_path / "initial")
