"""Who joins, and on which device."""

import pytest
import torch
from lm_examples import train_parameters

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.lm.ranks.team import joined, rank_device


def test_another_number_of_ranks_is_refused(team_of_one, monkeypatch):
    monkeypatch.setattr("tikmix_pipeline.lm.ranks.team.meet", lambda _: None)
    with (
        pytest.raises(TikmixError, match=r"train\.world_size is 2, but 1 ranks"),
        joined(train_parameters(world_size=2)),
    ):
        pass


def test_ranks_that_outnumber_the_gpus_are_refused(monkeypatch):
    monkeypatch.setattr("tikmix_pipeline.lm.ranks.team.resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert str(rank_device("auto", 0)) == "cuda:0"
    with pytest.raises(TikmixError, match=r"train\.world_size: this machine has 1 GPUs"):
        rank_device("auto", 1)
