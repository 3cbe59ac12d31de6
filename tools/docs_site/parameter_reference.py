"""The parameter reference: a page for every top-level group of `RunParameters`, written from its types and docstrings.

What stands there is what a run checks: nothing is typed in a second time. A group within a group has a section of its
own; one that is met by several ways, such as the sources of domains and tasks, has one section that names them all.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.base import UNRECORDED, OnlyIf
from tools.docs_site.type_words import groups_of, in_yaml, only_value, type_words

FOLDER = "parameters"
RUN = "run"
"""Name of the page of what belongs to no group."""

_LONGEST = 80
"""Characters of a value of `conf/base` that is still quoted."""

Group = type[BaseModel]

_INTRODUCTION = """\
Every parameter with its type, its default and what it means, made from the classes that check them. Set one on the
command line, `kedro run --params "tikmix.rounds=5,experiment=mine"`, or for good in `conf/<env>/parameters.yml`, nested
as its name is. A name that does not exist is refused with the nearest that does. Where `conf/base` sets something else
than the default, that is said."""


@dataclass
class Section:
    """A group of parameters, and by which ways it is reached."""

    group: Group
    paths: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str | None:
        """The one value that `kind` has in this group, where several share a place."""
        return only_value(self.group.model_fields["kind"]) if "kind" in self.group.model_fields else None

    @property
    def anchor(self) -> str:
        """What links to it end with."""
        return _anchor(self.paths[0]) + (f"-{self.kind}" if self.kind else "-group")

    def anchor_of(self, name: str) -> str:
        """Return what links to one of its parameters end with."""
        return _anchor(f"{self.paths[0]}.{name}") + (f"-{self.kind}" if self.kind else "")


def reference_pages(base: Mapping[str, Any]) -> dict[str, str]:
    """Return the pages by their path below docs/.

    Args:
        base: what `conf/base` sets, which is said where it is not the default; parameters stand in its order.
    """
    groups = {name: info for name, info in _fields(RunParameters, base) if groups_of(info.annotation)}
    alone = [name for name, _ in _fields(RunParameters, base) if name not in groups]
    pages = {name: _page(name, _group(info), base.get(name) or {}) for name, info in groups.items()}
    pages["index"] = _index(groups, alone)
    pages[RUN] = "\n".join(["# The run itself", "", *(_of_run(name, base) for name in alone)])
    return {f"{FOLDER}/{name}.md": text + "\n" for name, text in pages.items()}


def sections(path: str, group: Group) -> list[Section]:
    """Return a group and all groups inside it, each once, in the order in which they are met."""
    found: dict[Group, Section] = {}

    def visit(path: str, group: Group) -> None:
        section = found.setdefault(group, Section(group))
        section.paths.append(path)
        for name, info in _fields(group, {}):
            for inner in groups_of(info.annotation):
                visit(f"{path}.{name}{_below(info)}", inner)

    visit(path, group)
    return list(found.values())


def _index(groups: Mapping[str, FieldInfo], alone: Sequence[str]) -> str:
    rows = [f"| [the run itself]({RUN}.md) | {', '.join(f'`{name}`' for name in alone)} | {len(alone)} |"]
    for name, info in groups.items():
        count = sum(len(section.group.model_fields) for section in sections(name, _group(info)))
        summary = _text(_group(info).__doc__).split(". ")[0].rstrip(".")
        rows.append(f"| [`{name}`]({name}.md) | {summary} | {count} |")
    return "\n".join(["# Parameters", "", _INTRODUCTION, "", "| group | about | number |", "|---|---|---|", *rows])


def _page(name: str, group: Group, base: Mapping[str, Any]) -> str:
    first, *inner = sections(name, group)
    lines = [f"# `{name}`", "", _text(group.__doc__), ""]
    lines += [_entry(first, *named, base) for named in _fields(group, base)]
    for section in inner:
        title = f"`{section.paths[0]}`" + (f" of kind `{section.kind}`" if section.kind else "")
        lines += [f"## {title} {{ #{section.anchor} }}", "", _text(section.group.__doc__), ""]
        if section.paths[1:]:
            lines += [f"The same for {', '.join(f'`{path}`' for path in section.paths[1:])}.", ""]
        within = base.get(section.paths[0].removeprefix(f"{name}.")) or {}
        lines += [_entry(section, *named, within) for named in _fields(section.group, within)]
    return "\n".join(lines)


def _of_run(name: str, base: Mapping[str, Any]) -> str:
    info = dict(_fields(RunParameters, base))[name]
    return "\n".join([f"### `{name}` {{ #{name} }}", "", _facts(name, info, base), "", _text(info.description), ""])


def _entry(section: Section, name: str, info: FieldInfo, base: Mapping[str, Any]) -> str:
    """Return the heading, the type and default, and the docstring of one parameter."""
    path = f"{section.paths[0]}.{name}"
    is_typed_so = not {"<", "["} & set(path)
    heading = f"### `{path if is_typed_so else name}` {{ #{section.anchor_of(name)} }}"
    text = _text(info.description)
    if not text and groups_of(info.annotation) == [info.annotation]:
        text = _text(_group(info).__doc__)
    if not text and only_value(info):
        text = "Says which of the kinds this is."
    return "\n".join([heading, "", _facts(name, info, base), "", text, "", *_marks(section, name, info)])


def _facts(name: str, info: FieldInfo, base: Mapping[str, Any]) -> str:
    """Return type and default in a line, with what `conf/base` sets in its place."""
    is_group = groups_of(info.annotation) == [info.annotation]
    facts = [type_words(info.annotation, tuple(info.metadata))]
    default = None if info.is_required() or is_group else in_yaml(info.get_default(call_default_factory=True))
    if default is not None:
        facts.append(f"default `{default}`")
    elif not is_group:
        facts.append("required")
    set_there = in_yaml(base[name]) if name in base and not groups_of(info.annotation) else default
    if set_there is not None and set_there != default:
        facts.append(f"`{set_there}` in `conf/base`" if len(set_there) <= _LONGEST else "more in `conf/base`")
    return f"*{'; '.join(facts)}*"


def _marks(section: Section, name: str, info: FieldInfo) -> Iterator[str]:
    """Yield sentences on when a parameter counts, and on what does not depend on it."""
    bases = [base for base in section.group.__mro__ if issubclass(base, BaseModel)]
    declared = [base.model_fields[name] for base in bases if name in base.model_fields]
    for mark in info.metadata:
        # one facet may count a parameter in some cases alone, and another always
        if isinstance(mark, OnlyIf) and all(mark in other.metadata for other in declared):
            values = " or ".join(f"`{in_yaml(value)}`" for value in mark.values)
            yield f"Counts only while `{mark.field}` is {values}.\n"
    if UNRECORDED in info.metadata:
        yield "No result depends on it.\n"


def _fields(group: Group, base: Mapping[str, Any]) -> list[tuple[str, FieldInfo]]:
    """Return the parameters of a group under their public names, in the order of `conf/base` where they stand there."""
    named = [(info.alias or name, info) for name, info in group.model_fields.items()]
    order = list(base)
    return sorted(named, key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))


def _group(info: FieldInfo) -> Group:
    (group,) = groups_of(info.annotation)
    return group


def _below(info: FieldInfo) -> str:
    """Return what stands between a parameter's name and those of the groups that it holds many of."""
    words = type_words(info.annotation)
    return ".<name>" if words.startswith("mapping") else "[]" if words.startswith("list") else ""


def _anchor(path: str) -> str:
    return re.sub(r"[<>\[\]]", "", path)


def _text(docstring: str | None) -> str:
    """Return a docstring as Markdown: pages are linked, and what stands in angle brackets is no tag."""
    parts = " ".join((docstring or "").split()).split("`")
    for index in range(0, len(parts), 2):  # outside of code
        plain = parts[index].replace("<", "&lt;").replace("[", r"\[")
        parts[index] = re.sub(r"docs/(\w+)\.md", r"[docs/\1.md](../\1.md)", plain)
    return "`".join(parts)
