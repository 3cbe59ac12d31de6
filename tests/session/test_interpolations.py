"""What interpolations become is known before they are written out, and bounded."""

import time
from typing import Any

import pytest
from omegaconf import OmegaConf

from tikmix_pipeline.session.interpolations import UnboundedError, require_bounded

DOUBLED = {"a0": "x" * 10} | {f"a{link}": f"${{a{link - 1}}}${{a{link - 1}}}" for link in range(1, 60)}


@pytest.mark.parametrize(
    "values",
    [
        DOUBLED,
        dict(reversed(DOUBLED.items())),
        {"group": {"a0": "text", **{f"a{link}": f"${{.a{link - 1}}}-${{.a{link - 1}}}" for link in range(1, 40)}}},
        {"a0": [1, 2]} | {f"a{link}": [f"${{a{link - 1}}}", f"${{a{link - 1}}}"] for link in range(1, 40)},
        {"a0": {"b": 1}} | {f"a{link}": dict.fromkeys("bcd", f"${{a{link - 1}}}") for link in range(1, 40)},
        {"list": ["text", *(f"${{list[{link}]}}${{list[{link}]}}" for link in range(40))]},
        {"text": "x" * 1_000_000, "many": ["${text}"] * 50},
    ],
    ids=["chain", "backwards", "relative", "lists", "groups", "items", "many"],
)
def test_a_chain_that_doubles_is_refused_at_once_by_its_key(values: dict[str, Any]) -> None:
    started = time.monotonic()
    with pytest.raises(UnboundedError, match="written out") as error:
        require_bounded(values)
    assert error.value.full_key
    assert time.monotonic() - started < 5


def test_an_interpolation_within_another_is_refused_since_its_length_cannot_be_known() -> None:
    with pytest.raises(UnboundedError, match="within another") as error:
        require_bounded({"name": "a", "a": 1, "group": {"value": "${${name}}"}})
    assert error.value.full_key == "group.value"


@pytest.mark.parametrize(
    "values",
    [
        {"a": "text", "b": {"c": "${a} and ${.d}", "d": ["${a}", "${..d}"]}},
        {"a": "${b}", "b": "${a}"},
        {"a": "${none}", "b": "${globals:x}${runtime_params:y,3}", "c": "$5 {a} ${"},
        {"a": 1, "b": ["${a}"] * 1000},
    ],
    ids=["uses", "circle", "unknown", "many"],
)
def test_what_configurations_do_with_interpolations_passes(values: dict[str, Any]) -> None:
    require_bounded(values)


def test_what_is_counted_is_what_omegaconf_writes() -> None:
    values = {"a": "four", "b": "${a}${a}", "c": {"d": "-${b}-${.e[1]}", "e": ["x", "yy"]}}
    resolved = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    assert isinstance(resolved, dict)
    assert resolved["c"]["d"] == "-fourfour-yy"
    require_bounded(values)
