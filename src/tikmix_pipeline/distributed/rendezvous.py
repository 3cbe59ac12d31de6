"""How the ranks of a group find each other, on machines that may be busy with other things.

Ranks wait as long as it takes until all have started. Then they connect. On a starved machine gloo was seen to give up
a connection on one side alone, and the other would have waited for it half an hour. So they tell each other how it
went, by the launcher's store, and all of them try again.
"""

import logging
import os
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.rendezvous import rendezvous

_LOG = logging.getLogger(__name__)

_PATIENCE = timedelta(minutes=30)
"""For ranks to start, and for any exchange afterwards: a rank may be reading a large checkpoint."""
_CONNECTING = timedelta(seconds=6)
"""Gloo waits five times as long for the other side to connect."""
_TRIES = 6


def init_process_group(backend: str) -> None:
    """Initialise the default group of all ranks by the launcher's environment variables, or raise a RuntimeError."""
    store, rank, world_size = next(rendezvous("env://"))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    for number in range(_TRIES):
        # the launcher keeps its store when it starts ranks again, with the addresses of those that died
        here = PrefixStore(f"start_{start}/meeting_{number}", store)
        _wait_for_all("started", here, world_size)
        here.add("connected", int(_connect(backend, here, rank, world_size)))
        _wait_for_all("tried", here, world_size)
        if here.add("connected", 0) == world_size:
            _set_pg_timeout(_PATIENCE)
            return
        if dist.is_initialized():
            dist.destroy_process_group()
    raise RuntimeError(f"The ranks could not connect in {_TRIES} tries of {_CONNECTING.seconds} seconds.")


def _connect(backend: str, store: Store, rank: int, world_size: int) -> bool:
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_CONNECTING)
    except RuntimeError as error:
        _LOG.warning("Rank %d could not connect to the others (%s).", rank, error)
        return False
    return True


def _wait_for_all(what: str, store: Store, world_size: int) -> None:
    if store.add(what, 1) == world_size:
        store.set(f"all {what}", "yes")
    store.wait([f"all {what}"], _PATIENCE)
