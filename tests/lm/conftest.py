from pathlib import Path

import pytest
from lm_examples import MODEL, initial_checkpoint, train_parameters

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.lm.branch_pool import BranchSetting
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.schedule import Schedule


@pytest.fixture(autouse=True)
def _one_thread(single_thread: None) -> None:
    """Every test of this room runs in one thread."""


@pytest.fixture
def start(token_shards: TokenShards, tmp_path: Path) -> Checkpoint:
    return initial_checkpoint(token_shards, tmp_path / "initial")


@pytest.fixture
def setting(start: Checkpoint, token_shards: TokenShards) -> BranchSetting:
    """What branches of two steps have in common."""
    train = train_parameters()
    return BranchSetting(
        checkpoint=start.folder,
        shards=token_shards.folder,
        steps=2,
        model=MODEL,
        train=train,
        schedule=Schedule.of(train, 2),
        seed=0,
    )
