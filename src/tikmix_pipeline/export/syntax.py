"""Small pieces of the files' texts."""

import json
from collections.abc import Iterable

from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.weights import Shares, text_of


def quoted(text: str) -> str:
    """Return a text in double quotes, as YAML, JSON and Python all read it. It holds printable characters only."""
    return json.dumps(text, ensure_ascii=False)


def comment(lines: Iterable[str]) -> str:
    """Return lines as comments of YAML and Python."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def flow_list(items: Iterable[str]) -> str:
    """Return items that are already texts of the format as a list on one line."""
    return f"[{', '.join(items)}]"


def python_dicts(schedule: Schedule, name: str, shares: Shares) -> list[str]:
    """Return lines of Python: the domains' paths as the dictionary `PATHS`, their shares as one of that name."""
    return [
        "PATHS = {",
        *(f"    {quoted(domain)}: {quoted(schedule.domain(domain).path)}," for domain in shares),
        "}",
        f"{name} = {{",
        *(f"    {quoted(domain)}: {text_of(share)}," for domain, share in shares.items()),
        "}",
    ]


def block(lines: Iterable[str]) -> str:
    """Return lines as a text that ends with a line break."""
    return "".join(f"{line}\n" for line in lines)
