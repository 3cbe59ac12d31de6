import os
import socket
from collections.abc import Iterator

import pytest
from lm_examples import train_parameters

from tikmix_pipeline.lm.ranks.team import RankTeam, joined


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
