"""Names become folders, columns, metrics and pages: none may be a path, markup, a formula or a command."""

from typing import Any

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.check import check_parameters

SOURCES = {"sources": [{"kind": "files", "path": "none.jsonl"}]}
CORPUS: dict[str, Any] = {"name": "none", "domains": {"code": SOURCES}, "tasks": {"quiz": SOURCES}}
HOSTILE = (
    *("../up", "..", ".", "a/b", "a\\b", "/etc", "~", "a\nb", "a\n", "", " a"),
    *("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "a;b", "$(id)", "`id`", "a|b", "a&b", "*", "a?b"),
    "a" * 101,
    *("<b>", "a[b](c)", "![x](http://x)", "```", "{{7*7}}", "!!python/name:os", "a: b", "a#b", "a%2Fb", "a\x1b[31m"),
)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["experiment", "corpus", "domains", "tasks", "arms"])
def test_name_that_could_be_anything_but_a_name_is_refused(kind: str, name: str) -> None:
    told: dict[str, Any] = {"corpus": dict(CORPUS)}
    if kind == "experiment":
        told["experiment"] = name
    elif kind == "corpus":
        told["corpus"]["name"] = name
    elif kind == "arms":
        told["compare"] = {"definitions": {name: {}}, "reference": name}
    else:
        told["corpus"][kind] = {name: SOURCES}
    with pytest.raises(TikmixError, match="The parameters are not valid"):
        check_parameters(told)


def test_names_of_the_kind_that_is_meant_are_taken() -> None:
    assert check_parameters({"experiment": "run-2.b_1", "corpus": CORPUS}).experiment == "run-2.b_1"
