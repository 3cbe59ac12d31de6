"""Tables and sentences in two forms: aligned for a terminal, and in Markdown for a page that renders it.

In Markdown everything is text, whoever wrote it: a name can make no link, no image, no HTML, and cannot end the cell
that it stands in. What could is written as a character reference, which Markdown never takes for structure
(CommonMark 0.31, section 2.5) and which Showdown, MLflow's renderer, leaves alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tikmix_pipeline.report.terminal_text import block, wrapped

_PLAIN = set(" .,;%()/'\"?-+=:")
"""Punctuation that means nothing in the middle of a line, but for what `_ACTIVE` finds."""
_ACTIVE = re.compile(r":(?=\S)|(?<=www)\.", re.IGNORECASE)
"""The beginning of an address, or of an emoji's name."""
_ACTIVE_FIRST = re.compile(r"[-+=:]|\d+[.)](?=\s|$)")
"""The beginning of a list or a rule, where a line begins."""
_GAP = "&emsp;"  # MLflow's pages set the columns of a table side by side without any
_SHOWDOWNS_OWN = "\u00a8"  # by which it marks what it has replaced


@dataclass(frozen=True)
class Table:
    """Cells by row; the first column is text, the others are figures unless `is_text`.

    The first cell of the header says what the table is of: on a page it is a heading.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: bool = False


@dataclass(frozen=True)
class LaidOut:
    """What a run ends with."""

    text: str
    """For a terminal."""
    markdown: str
    """The same for a page, its headline first."""


Part = Table | str | Sequence[str]
"""A table; a sentence, which may be broken into lines; or several sentences, each on a line of its own."""


def laid_out(parts: Sequence[Part], *, places: str = "", headline: str = "") -> LaidOut:
    """Lay out the parts of which there is something to say.

    Args:
        parts: in their order.
        places: where the rest is, which the text alone says.
        headline: the sentence that counts most, which a page begins with and a terminal ends with.
    """
    told = [part for part in parts if part]
    text = "\n" + "\n\n".join([*map(_as_text, told), *([wrapped(places)] if places else [])])
    return LaidOut(
        text=f"{text}\n\n{wrapped(headline)}" if headline else text,
        markdown="\n\n".join(map(_as_markdown, [*([headline] if headline else []), *told])),
    )


def plain(text: str, *, begins_line: bool = True) -> str:
    """Return text of any kind on one line of Markdown, where all of it is text, or within a line that has begun."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    active = {found.start() for found in _ACTIVE.finditer(line)}
    if begins_line and _ACTIVE_FIRST.match(line):
        active.add(0)
    return "".join(
        character if position not in active and _is_plain(character) else f"&#{ord(character)};"
        for position, character in enumerate(line)
    )


def shortened(markdown: str, most: int, rest: str) -> str:
    """Return Markdown of at most so many characters, cut between lines; `rest` says where all of it is."""
    if len(markdown) <= most:
        return markdown
    lines = markdown.split("\n")
    while lines and len("\n".join(lines)) + len(rest) + 2 > most:
        lines.pop()
    return "\n".join([*lines, "", rest])


def _is_plain(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in _PLAIN
    return character != _SHOWDOWNS_OWN


def _as_text(part: Part) -> str:
    if isinstance(part, Table):
        return block(part.header, _padded(part))
    return wrapped(part if isinstance(part, str) else "\n".join(part))


def _padded(table: Table) -> Sequence[Sequence[str]]:
    """Return rows whose columns stand to the left, by blanks, where they are text."""
    if not table.is_text:
        return table.rows
    widths = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table.rows]


def _as_markdown(part: Part) -> str:
    if isinstance(part, Table):
        sides = [":---", *([":---"] if part.is_text else ["---:"]) * (len(part.header) - 1)]
        title, *names = (plain(cell, begins_line=False) for cell in part.header)
        rows = [["", *names], *([plain(cell, begins_line=False) for cell in row] for row in part.rows)]
        spaced = [[row[0], *(f"{_GAP}{cell}" if cell else "" for cell in row[1:])] for row in rows]
        lines = [f"| {' | '.join(row)} |" for row in [spaced[0], sides, *spaced[1:]]]
        return "\n".join([f"#### **{title}**", "", *lines])
    return "\n\n".join(map(plain, [part] if isinstance(part, str) else part))
