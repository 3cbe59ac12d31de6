"""Lists as Python-Markdown reads them, from lists as GitHub does, for which the pages are written.

GitHub lets a list follow a paragraph without a blank line, and nests what is indented by two spaces. Python-Markdown
wants the blank line, without which the list is part of the paragraph, and four spaces.
"""

import re
from collections.abc import Iterator

_ITEM = re.compile(r"(?:[-*+]|\d+\.) ")
_FENCE = re.compile(r" *(?:```|~~~)")


def lists_for_python_markdown(text: str) -> str:
    """Return a page with blank lines before its lists, and with what is nested in them indented by four spaces."""
    return "\n".join(_lines(text))


def _lines(text: str) -> Iterator[str]:
    in_bullets, in_fence, before = False, False, ""
    for line in text.split("\n"):
        is_item = not in_fence and bool(_ITEM.match(line))
        if is_item and not in_bullets and before.strip() and not _ITEM.match(before) and not before.startswith(" "):
            yield ""
        if is_item:
            in_bullets = line[0] in "-*+"
        elif line and not line.startswith(" ") and not in_fence:
            in_bullets = False
        if _FENCE.match(line):
            in_fence = not in_fence
        nested = len(line) - len(line.lstrip(" ")) if in_bullets else 0
        # code keeps its own indentation
        yield " " * (min(nested, 2) if in_fence or _FENCE.match(line) else nested) + line
        before = line
