from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lm_examples import initial_checkpoint

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.lm.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Matrices of width 32 gain nothing from threads, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def start(token_shards: TokenShards, tmp_path: Path) -> Checkpoint:
    return initial_checkpoint(token_shards, tmp_path / "initial")
