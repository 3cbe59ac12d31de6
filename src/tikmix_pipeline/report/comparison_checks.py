"""What every table that a comparison reads must be like."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tikmix_pipeline.errors import TikmixError

if TYPE_CHECKING:
    import pandas as pd


def check_table(table: "pd.DataFrame", name: str, *, keys: Sequence[str], values: Sequence[str]) -> None:
    """Check that a table has its columns, and no two rows of the same keys.

    Args:
        table: long, other columns are nobody's business.
        name: what the table is called in a complaint.
        keys: the columns that tell rows apart.
        values: the other columns that are read.

    Raises:
        TikmixError: a column is missing, or two rows are of the same keys.
    """
    missing = [column for column in (*keys, *values) if column not in table.columns]
    if missing:
        raise TikmixError(
            f"The table of {name} lacks the column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}. "
            "Write it again with this version of the project."
        )
    twice = table.duplicated(list(keys))
    if twice.any():
        row = table.loc[twice, list(keys)].iloc[0]
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        raise TikmixError(
            f"The table of {name} has two rows of {where}. Give every row an arm, seed and name of its own."
        )
