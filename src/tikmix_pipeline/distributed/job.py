"""What several processes are to do, in a folder that all of them see.

Whoever starts the ranks again needs that folder alone.
"""

from pathlib import Path
from typing import Any, Literal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, write_json
from tikmix_pipeline.lm.resume import JOB

Kind = Literal["training", "measuring"]


def write_job(folder: Path, kind: Kind, content: dict[str, Any]) -> None:
    """Write a job of JSON-able values to a folder that is there."""
    write_json(folder / JOB, {"kind": kind, **content})


def read_job(folder: Path) -> dict[str, Any]:
    """Read the job of a folder, its `kind` among the values.

    Raises:
        TikmixError: there is none.
    """
    if not (folder / JOB).is_file():
        raise TikmixError(
            f"{folder} holds no {JOB}: ranks are started on the folder that a run with train.world_size above 1 "
            "prepares, and that every machine must see."
        )
    content: dict[str, Any] = read_json(folder / JOB)
    return content
