"""Who joins, and on which device."""

import pytest
import torch
from lm_examples import train_parameters

from tikmix_pipeline.distributed.sharding import joined, rank_device
from tikmix_pipeline.errors import TikmixError


def test_another_number_of_ranks_is_refused(mesh_of_one, monkeypatch):
    monkeypatch.setattr("tikmix_pipeline.distributed.sharding.init_process_group", lambda _: None)
    with (
        pytest.raises(TikmixError, match=r"train\.world_size is 2, but 1 ranks"),
        joined(train_parameters(world_size=2)),
    ):
        pass


def test_ranks_that_outnumber_the_gpus_are_refused(monkeypatch):
    monkeypatch.setattr("tikmix_pipeline.distributed.sharding.resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert str(rank_device("auto", 0)) == "cuda:0"
    with pytest.raises(TikmixError, match=r"train\.world_size: this machine has 1 GPUs"):
        rank_device("auto", 1)


def test_ranks_that_are_started_again_do_not_meet_those_that_died(monkeypatch):
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launcher = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}
    for start in (0, 1):
        for name, value in {**launcher, **alone, "TORCHELASTIC_RESTART_COUNT": start}.items():
            monkeypatch.setenv(name, str(value))
        with joined(train_parameters()):
            # not in a second meeting: what the first start left in the launcher's store counts for nothing
            assert store.check([f"start_{start}/meeting_0/all tried"])
            assert not store.check([f"start_{start}/meeting_1/all tried"])
