import re
import sys
from pathlib import Path

import pytest

from tikmix_pipeline.memory import give_back_memory


def resident_bytes() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found.group(1)) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_small_pieces_took_goes_back_though_a_piece_on_top_of_them_stays():
    pieces = [bytes(1000) for _ in range(200_000)]
    last = bytes(1000)
    held = resident_bytes()
    pieces.clear()
    give_back_memory()
    assert len(last) == 1000
    assert resident_bytes() < held - 100_000_000
