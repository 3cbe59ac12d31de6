"""Rows of text in columns that line up."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, separator: str = "  ", widths: Sequence[int] | None = None) -> list[str]:
    """Return rows as lines: the first column to the left, the others to the right.

    Without `widths`, in characters, a column is as wide as its longest cell.
    """
    if widths is None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        separator.join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
