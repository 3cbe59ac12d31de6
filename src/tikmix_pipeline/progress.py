"""Progress bars: every long step shows its rate and the time left."""

import sys
from typing import Any

from tqdm import tqdm

_LOG_SECONDS = 10.0
_LOG_COLUMNS = 100


def progress_bar(description: str, total: int | None, unit: str) -> "tqdm[Any]":
    """Return a bar that counts `unit`s on standard error; where that is a log, it is drawn rarely."""
    on_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=True,
        dynamic_ncols=on_terminal,
        ncols=None if on_terminal else _LOG_COLUMNS,
        mininterval=0.5 if on_terminal else _LOG_SECONDS,
    )
