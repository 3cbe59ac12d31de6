"""One file of the configuration: read in bounded time and memory, and what is wrong with it told by file and line."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from tikmix_pipeline.errors import TikmixError

_LARGEST_BYTES = 10_000_000
_MOST_VALUES = 50_000
_DEEPEST = 50
_WORDS = {"bool": "for yes or no", "int": "for a number", "float": "for a number", "null": "for nothing"}
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(path: Path, *, of_names: bool) -> Any:
    """Return a file's content as OmegaConf has it; `of_names`: whether its keys are names, and so text.

    Raises:
        TikmixError: it is not UTF-8, not YAML, not keys with values, or larger than any configuration is, aliases
            written out; or YAML takes a key for something else than text.
    """
    try:
        content = path.read_bytes()
        if len(content) > _LARGEST_BYTES:
            raise TikmixError(f"it has {len(content) / 1e6:.0f} MB, and no configuration has over 10")
        text = content.decode("utf-8")
        _require_bounded(yaml.parse(text, Loader=_PARSER), of_names=of_names)
        return OmegaConf.load(io.StringIO(text))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise TikmixError(
            f"{path}, line {line}: the byte 0x{content[error.start]:02x} is no UTF-8. Save it as UTF-8, or convert "
            f"it: iconv -f LATIN1 -t UTF-8 {path.name}"
        ) from None
    except Exception as error:  # whatever YAML's constructors and OmegaConf raise, it is of this file
        problem = " ".join(str(error).replace('"<file>", ', "").split())[:300]
        raise TikmixError(f"{path} cannot be read: {problem or type(error).__name__}.") from None


@dataclass
class _Container:
    """A mapping or list whose end is still to come."""

    anchor: str | None
    is_mapping: bool
    size: int = 1
    parts: int = 0


def _require_bounded(events: Iterable[Any], *, of_names: bool) -> None:
    """Refuse what OmegaConf would take unbounded time for; values are counted with their aliases written out."""
    sizes: dict[str, int] = {}
    around: list[_Container] = []
    values = 0
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            ended = around.pop()
            sizes |= {ended.anchor: ended.size} if ended.anchor else {}
            if around:
                around[-1].size += ended.size
        if not isinstance(event, yaml.NodeEvent):
            continue
        if not around and not isinstance(event, yaml.MappingStartEvent):
            raise TikmixError("it holds a list or a single value, and not names with their values (`name: value`)")
        if around:
            around[-1].parts += 1
            if of_names and around[-1].is_mapping and around[-1].parts % 2:
                _require_text(event)
        size = _size_of(event, sizes)
        values += size
        if isinstance(event, yaml.CollectionStartEvent):
            around.append(_Container(event.anchor, isinstance(event, yaml.MappingStartEvent)))
        else:
            around[-1].size += size
        if values > _MOST_VALUES or len(around) > _DEEPEST:
            raise TikmixError(
                f"line {event.start_mark.line + 1}: it has more than {_MOST_VALUES:,} values, aliases written out, or "
                f"more than {_DEEPEST} of them inside each other"
            )


def _size_of(event: Any, sizes: dict[str, int]) -> int:
    """Return how many values an event stands for."""
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in sizes:
            raise TikmixError(f"line {event.start_mark.line + 1}: *{event.anchor} stands for something that it is in")
        return sizes[event.anchor]
    if isinstance(event, yaml.ScalarEvent) and event.anchor:
        sizes[event.anchor] = 1
    return 1


def _require_text(event: Any) -> None:
    """Refuse a key that YAML takes for something else than a name."""
    if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
        tag = yaml.resolver.Resolver().resolve(yaml.ScalarNode, event.value, (True, False))
        meaning = _WORDS.get(tag.rpartition(":")[2])
        if meaning is not None:
            line, name = event.start_mark.line + 1, event.value
            raise TikmixError(
                f"line {line}: the key {name or 'that is empty'} is YAML's word {meaning}. Write it in quotes if it is "
                f'meant as a name, as "{name}"'
            )
