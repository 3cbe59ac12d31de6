"""How long values get once the `${key}` in them are written out: a chain of `${a}${a}` doubles with every link."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_MOST = 10_000_000
_REFERENCE = re.compile(r"\$\{\s*(\.*)([^${}:]+?)\s*\}")
_NESTED = re.compile(r"\$\{[^{}:]*\$\{")
_Path = tuple[str, ...]


class UnboundedError(ValueError):
    """Interpolations are more text than any configuration is; `full_key`: where, as OmegaConf's errors have it."""

    def __init__(self, message: str, full_key: str) -> None:
        """Tell what is wrong at a key."""
        super().__init__(message)
        self.full_key = full_key


def require_bounded(values: Any) -> None:
    """Refuse interpolations that would be more than ten million characters and values when they are written out.

    Each value is looked at once, however many others refer to it. What refers to itself, to nothing, or to something
    that a resolver makes counts as nothing: resolving it ends at once, or OmegaConf refuses it.

    Args:
        values: The configuration before it is resolved, as plain mappings, lists and values.

    Raises:
        UnboundedError: names the key whose value gets too long, or has a key's name from another interpolation.
    """
    sizes: dict[_Path, int] = {}
    waiting: list[_Path] = [()]
    while waiting:
        path = waiting[-1]
        sizes.setdefault(path, 0)
        parts = list(_parts(values, path))
        unknown = [part for part in parts if part not in sizes]
        if unknown:
            waiting += unknown
            continue
        sizes[waiting.pop()] = size = _own_size(_at(values, path)) + sum(sizes[part] for part in parts)
        if size > _MOST:
            raise UnboundedError(
                f"with its interpolations written out it has {size:,} characters and values, and none may have over "
                f"{_MOST:,}: a value that holds another one twice doubles it",
                ".".join(path),
            )


def _parts(values: Any, path: _Path) -> Iterator[_Path]:
    """Return where the values stand that one consists of: its own, or those that its interpolations name."""
    value = _at(values, path)
    if isinstance(value, Mapping):
        yield from ((*path, str(key)) for key in value)
    elif isinstance(value, list):
        yield from ((*path, str(index)) for index in range(len(value)))
    elif isinstance(value, str):
        if _NESTED.search(value):
            raise UnboundedError("there is an interpolation within another one", ".".join(path))
        for dots, name in _REFERENCE.findall(value):
            yield (*path[: -len(dots)], *_names(name)) if dots else _names(name)


def _names(reference: str) -> _Path:
    """Return `a.b[0]` as the names on the way to it."""
    return tuple(part for part in re.split(r"[.\[\]]+", reference) if part)


def _own_size(value: Any) -> int:
    return len(value) if isinstance(value, str) else 1


def _at(values: Any, path: _Path) -> Any:
    """Return what stands at a path, None where nothing does."""
    for part in path:
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and part.isdecimal() and int(part) < len(values):
            values = values[int(part)]
        else:
            return None
    return values
