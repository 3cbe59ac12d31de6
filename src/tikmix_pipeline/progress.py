"""Progress bars: every long step shows its rate and the time left."""

from typing import Any

from tqdm import tqdm


def progress_bar(description: str, total: int | None, unit: str) -> "tqdm[Any]":
    """Return a bar that counts `unit`s; silent where standard error is not a terminal."""
    return tqdm(
        total=total, desc=description, unit=unit, unit_scale=True, dynamic_ncols=True, disable=None, mininterval=0.5
    )
