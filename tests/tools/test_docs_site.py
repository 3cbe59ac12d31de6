"""The site names every page, and its parameter reference says of every parameter what it is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from tikmix_pipeline.parameters import RunParameters
from tools.docs_site.hooks import made_pages
from tools.docs_site.list_markup import lists_for_python_markdown
from tools.docs_site.parameter_reference import sections
from tools.docs_site.type_words import in_yaml, type_words

ROOT = Path(__file__).parents[2]
PAGES = made_pages(ROOT)
DESCRIBED = ("library", "mixture.direct", "mixture.response", "influence.group", "corpus.stream", "export.registry")


def nav_pages(entries: Any) -> Iterator[str]:
    for entry in entries:
        page = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [page] if isinstance(page, str) else nav_pages(page)


def parameters(group: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every parameter by its path, walked without the generator's help; of `<name>` and of list items no part."""
    for name, info in group.model_fields.items():
        own = f"{path}{info.alias or name}"
        yield own, info
        for inner in groups(info.annotation):
            yield from parameters(inner, f"{own}.")


def groups(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in groups(part)]


def test_the_navigation_names_every_page_once() -> None:
    named = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(named) == sorted(written | PAGES.keys()), "name new pages in nav of mkdocs.yml"


@pytest.mark.parametrize("path", sorted({path for path, _ in parameters(RunParameters)}))
def test_every_parameter_has_an_entry(path: str) -> None:
    top = path.partition(".")[0]
    if f"parameters/{path}.md" in PAGES:  # a group has a page
        return
    page = PAGES.get(f"parameters/{top}.md", PAGES["parameters/run.md"])
    # below names of domains and items of lists, the section has the path and the entry the name
    assert f"\n### `{path}` {{ #" in page or f"\n### `{path.rpartition('.')[2]}` {{ #" in page


def test_as_many_entries_as_parameters_of_distinct_groups() -> None:
    for name, info in RunParameters.model_fields.items():
        for group in groups(info.annotation):
            expected = sum(len(section.group.model_fields) for section in sections(name, group))
            assert PAGES[f"parameters/{info.alias or name}.md"].count("\n### `") == expected


def test_every_parameter_says_what_it_means() -> None:
    silent = [
        path
        for path, info in parameters(RunParameters)
        if not info.description and groups(info.annotation) != [info.annotation] and not path.endswith(".kind")
    ]
    assert not silent, "give these a docstring"


def test_anchors_of_a_page_are_unlike() -> None:
    for page, text in PAGES.items():
        anchors = re.findall(r"\{ #(\S+) \}", text)
        assert len(anchors) == len(set(anchors)), page


def test_types_defaults_limits_and_conditions_are_said() -> None:
    optimize, train = PAGES["parameters/optimize.md"], PAGES["parameters/train.md"]
    assert "*number above 0 and at most 1, or null; default `null`*\n\nHow far a domain's weight may move" in optimize
    assert "*`response` or `paper`; default `response`*" in optimize
    assert "Counts only while `optimizer` is `muon`." in train
    assert "No result depends on it." in train
    assert "default `null`; `4.0` in `conf/base`" in PAGES["parameters/corpus.md"]


def test_a_condition_that_one_reader_alone_makes_is_not_told_as_one() -> None:
    entry = PAGES["parameters/sweep.md"].partition("### `sweep.objective`")[2].partition("###")[0]
    assert "What is searched for" in entry
    assert "Counts only" not in entry


def test_a_type_without_words_is_refused() -> None:
    with pytest.raises(TypeError, match="no words yet"):
        type_words(bytes)


def test_values_are_told_as_yaml() -> None:
    assert in_yaml({"a": [True, None, ""], "b": 0.5}) == '{a: [true, null, ""], b: 0.5}'


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Says:\n- one\n- two\n\nEnd", "Says:\n\n- one\n- two\n\nEnd"),
        ("- one\n  - two\n    three\n\n  | a |\n- four", "- one\n    - two\n        three\n\n    | a |\n- four"),
        ("Steps\n1. one\n   two", "Steps\n\n1. one\n   two"),
        ("```\nx:\n- y\n  z\n```", "```\nx:\n- y\n  z\n```"),
        ("- a\n  ```\n  b\n    c\n  ```", "- a\n    ```\n    b\n      c\n    ```"),
        ("- a\n\nb\n  c", "- a\n\nb\n  c"),
    ],
    ids=["after a paragraph", "nested", "numbered", "code", "code in a list", "after a list"],
)
def test_lists_are_read_as_they_are_written(written: str, read: str) -> None:
    assert lists_for_python_markdown(written) == read


def test_the_python_pages_describe_what_they_promise() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    named = re.findall(r"^::: tikmix_pipeline\.(\S+)$", pages, re.MULTILINE)
    assert not set(DESCRIBED) - set(named)
    assert any(name.startswith("report.") for name in named)
    for name in named:
        assert (ROOT / "src" / "tikmix_pipeline" / f"{name.replace('.', '/')}.py").is_file(), name
