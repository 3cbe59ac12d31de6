"""The cells of a user's table as they stand in the file, and which of them hold the ids of the runs.

Nothing is parsed here but the CSV itself, so that whatever is at fault later can be named by its line and shown as it
was written.
"""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tikmix_pipeline.errors import TikmixError, quoted

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMNS = ("run", "run_id", "index")
"""Columns that may hold the id of a run, the first that is there."""

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_OF_STATISTICS = "mean average avg median mode std stdev stderr var variance min max sum total count"
_STATISTICS = frozenset(_OF_STATISTICS.split())
"""What a row is called that a spreadsheet or pandas has written below the runs."""

_SHOWN = 5


def read_cells(path: Path) -> "pd.DataFrame":
    """Return the rows that are not blank, the header first, each under its line; what a row lacks is missing.

    Raises:
        TikmixError: the file is missing, no CSV in UTF-8, or has no rows.
    """
    import pandas as pd

    if not path.is_file():
        raise TikmixError(f"There is no file {path}. Set sweep.table to CSV files with one row per run.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        width = 1 + max((line.count(",") for line in text.splitlines()), default=0)
        # as text: a number is read to its last bit, and what is none is shown as it stands in the file
        cells = pd.read_csv(
            io.StringIO(text),
            header=None,
            names=range(width),
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            engine="python",
        )
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise TikmixError(f"{path} is not a CSV file in UTF-8 ({error}). Export the table again as one.") from error
    cells = cells.apply(lambda column: column.str.strip()).rename(index=lambda row: row + 1)
    cells = cells[(cells.fillna("") != "").any(axis=1)]
    if len(cells) < 2:
        raise TikmixError(f"{path} has no rows. It needs a header, and then one row per run.")
    return cells


def header_of(cells: "pd.DataFrame") -> list[str]:
    """Return the names of the columns."""
    header: list[str] = cells.iloc[0].dropna().tolist()
    return header


def id_column(path: Path, header: list[str], other: list[str]) -> str:
    """Return the first id column that both files have, else the first of this one.

    Raises:
        TikmixError: there is none; the message says so of other separators and of other spellings.
    """
    here = [column for column in ID_COLUMNS if column in header]
    if here:
        return next((column for column in here if column in other), here[0])
    separator = next((mark for mark in _SEPARATORS if len(header) == 1 and mark in header[0]), None)
    if separator is not None:
        raise TikmixError(
            f"{path}, line 1: the cells are separated by {_SEPARATORS[separator]}, expected commas. Export the table "
            "again with commas between the cells, and points in the numbers."
        )
    nearly = {_spelled(name): name for name in ID_COLUMNS}
    meant = next(((column, nearly[_spelled(column)]) for column in header if _spelled(column) in nearly), None)
    raise TikmixError(
        f"{path} has no column of run ids: expected one of {quoted(ID_COLUMNS)}, found {quoted(header[:_SHOWN])}"
        f"{', ...' if len(header) > _SHOWN else ''}. Give each run an id, the same in both files"
        + (f"; if '{meant[0]}' is that, call it '{meant[1]}'." if meant else ".")
    )


def check_ids(path: Path, runs: "pd.Series[str]", column: str) -> None:
    """Refuse runs without an id, ids of several runs, and rows of statistics over the others.

    Raises:
        TikmixError: naming the line.
    """
    lines: dict[str, int] = {}
    for line, run in runs.items():
        if not run:
            raise TikmixError(f"{path}, line {line}: the run has no id in the column '{column}'. Give it one.")
        if run in lines:
            raise TikmixError(
                f"{path}, line {line}: the id '{run}' in the column '{column}' is that of line {lines[run]} too. "
                "Give every run an id of its own."
            )
        if run.strip(".: ").lower() in _STATISTICS:
            raise TikmixError(
                f"{path}, line {line}: '{run}' in the column '{column}' looks like a statistic over the other rows, "
                "expected the id of a run. Take the row out, or call the run otherwise if it is one."
            )
        lines[run] = line


def _spelled(column: str) -> str:
    return re.sub(r"[^a-z]", "", column.lower())
