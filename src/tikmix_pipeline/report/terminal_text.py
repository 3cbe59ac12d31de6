"""How text stands on a terminal of 80 columns: tables in blocks, sentences wrapped."""

import textwrap
from collections.abc import Sequence

from tikmix_pipeline.columns import aligned

WIDTH = 80
_GAP = "…"
_ROUND = "round "


def block(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table under its heads; where it is too wide, without the middle ones of its columns of rounds."""
    table = [list(row) for row in (header, *rows)]
    lines = aligned(table)
    while len(lines[0]) > WIDTH and (narrower := _without_a_round(table)) is not None:
        table, lines = narrower, aligned(narrower)
    rule = "-" * len(lines[0])
    return "\n".join(line.rstrip() for line in [lines[0], rule, *lines[1:]])


def _without_a_round(table: list[list[str]]) -> list[list[str]] | None:
    """Return a table without the first of its columns of rounds that stands between others; None if there is none."""
    rounds = [place for place, head in enumerate(table[0]) if head.startswith(_ROUND)]
    if len(rounds) < 3:
        return None
    dropped = rounds[1]
    if table[0][dropped - 1] == _GAP:
        return [row[:dropped] + row[dropped + 1 :] for row in table]
    gaps = [_GAP, *("" for _ in table[1:])]
    return [[*row[:dropped], gap, *row[dropped + 1 :]] for row, gap in zip(table, gaps, strict=True)]


def wrapped(text: str) -> str:
    """Return sentences, a line each, in lines that fit.

    Words longer than that, as paths are, stay whole, and so do the rows of a table in Markdown.
    """
    return "\n".join(
        line if line.startswith("|") else textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )
