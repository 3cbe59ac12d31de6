"""Where a chunk under way was last kept: a checkpoint of one process, or the spread state of several.

A folder of resume points is one or the other:

    config.json, model.safetensors, ...      a checkpoint of this very chunk, by one process
    job.json                                 what several processes are to train (`ranks.training`)
    one_process/                             where they began, if one process had trained a part of the chunk
    step_00000150/                           their state after so many steps; complete once it holds state.json
"""

from pathlib import Path

JOB = "job.json"
ONE_PROCESS = "one_process"
STATE = "state.json"


def find_point(folder: Path) -> Path | None:
    """Return the latest complete resume point in a folder."""
    if (folder / "config.json").is_file():
        return folder
    points = spread_points(folder)
    if points:
        return points[-1]
    before = folder / ONE_PROCESS
    return before if (before / "config.json").is_file() else None


def spread_points(folder: Path) -> list[Path]:
    """Return the complete resume points that several processes wrote to a folder, in the order of their steps."""
    return sorted(path.parent for path in folder.glob(f"step_*/{STATE}"))


def point_name(step: int) -> str:
    """Name the resume point of several processes after so many steps."""
    return f"step_{step:08d}"


def is_spread(point: Path) -> bool:
    """Tell whether a resume point was written by several processes."""
    return (point / STATE).is_file()
