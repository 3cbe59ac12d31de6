"""Which columns of a table of scores are targets, and which of these are the better the higher.

Nothing but their names tells. A column that says when or how a run was trained would be optimised like any other, so
it is asked about; a direction that was assumed is said.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tikmix_pipeline.errors import TikmixError, quoted
from tikmix_pipeline.mixture.sweep.metric_names import is_no_metric, is_the_better_the_higher


def chosen_targets(path: Path, columns: Sequence[str], named: Sequence[str] | None) -> list[str]:
    """Return the columns that are targets, in the order of the file.

    Args:
        path: of the file, for complaints.
        columns: that the file has besides the runs' ids.
        named: those that the user says are; None for all.

    Raises:
        TikmixError: a name is of no column, or nobody has said that a column is a target that looks like none.
    """
    if named is not None:
        unknown = [name for name in named if name not in columns]
        if unknown or not named:
            found = f"names {quoted(unknown)}, no column of {path}" if unknown else "names none"
            raise TikmixError(f"sweep.table.targets {found}. There are {quoted(columns)}.")
        return [name for name in columns if name in named]
    odd = [name for name in columns if is_no_metric(name)]
    if odd:
        others = [name for name in columns if name not in odd]
        raise TikmixError(
            f"{path}: {quoted(odd)} {'look' if len(odd) > 1 else 'looks'} like no metric, and every target is "
            f"optimised. Say which columns are targets: sweep.table.targets={'+'.join(others or columns)}"
        )
    return list(columns)


def is_higher_better(
    path: Path, targets: Sequence[str], named: Sequence[str] | Literal["auto"]
) -> tuple[list[bool], str]:
    """Return of each target whether it is the better the higher, and a sentence that says so.

    Raises:
        TikmixError: a name is of no target.
    """
    if named != "auto":
        unknown = [name for name in named if name not in targets]
        if unknown:
            raise TikmixError(
                f"sweep.table.higher_is_better names {quoted(unknown)}, no target of {path}. There are "
                f"{quoted(targets)}."
            )
    higher = [is_the_better_the_higher(name) if named == "auto" else name in named for name in targets]
    if not any(higher):
        said = f"All targets of {path} are taken as losses, the better the lower"
    else:
        up = quoted([name for name, is_higher in zip(targets, higher, strict=True) if is_higher])
        down = quoted([name for name, is_higher in zip(targets, higher, strict=True) if not is_higher])
        said = f"Of {path} the higher the better: {up}, whose sign is turned from here on; the lower: {down or 'none'}"
    assumed = ", by their names (sweep.table.higher_is_better says otherwise)" if named == "auto" else ""
    return higher, f"{said}{assumed}."
