"""Weights as decimals, and texts of YAML, JSON and Python, as far as the writers share them.

Frameworks differ over zeros (some fail an assertion, some hang) and over sums of weights. None objects to these:

    share       Decimal, a whole number of units of 10^-9, above 0; written without an exponent
    shares      by domain, in the order of names, summing to exactly 1

YAML is PyYAML's, with what it does not know by itself: weights as plain decimals, names and paths in double quotes, and
which collections stand on one line.

    Quoted      a text in double quotes; any other text is written plain where YAML allows it
    Decimal     a weight, without an exponent
    tuple       a list on one line;         list    one item a line
    Inline      a mapping on one line;      dict    one key a line
"""

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import yaml

from tikmix_pipeline.mixture.simplex import round_to_simplex

DECIMALS = 9
"""A weight moves by less than 10^-9 when it is written."""

Shares = Mapping[str, Decimal]


def shares_of(weights: Mapping[str, float], decimals: int = DECIMALS) -> dict[str, Decimal]:
    """Return the weights as decimals that sum to exactly 1, by name; what rounds to zero is left out.

    Args:
        weights: not negative, not all zero; any sum.
        decimals: digits after the point.
    """
    names = sorted(weights)
    rounded_K = round_to_simplex(np.array([weights[name] for name in names], dtype=np.float64), decimals)
    shares = {name: plain_decimal(weight, decimals) for name, weight in zip(names, rounded_K.tolist(), strict=True)}
    return {name: share for name, share in shares.items() if share}


def plain_decimal(value: float, decimals: int = DECIMALS) -> Decimal:
    """Return a float rounded to so many digits after the point, without an exponent or trailing zeros."""
    digits = f"{value:.{decimals}f}".rstrip("0")
    return Decimal(digits + "0" if digits.endswith(".") else digits)


def text_of(share: Decimal) -> str:
    """Return a share as plain text, `1.0` for a whole number, so that every reader takes it for a float."""
    text = f"{share:f}"
    return text if "." in text else f"{text}.0"


def floats(shares: Shares) -> dict[str, float]:
    """Return shares as floats."""
    return {name: float(share) for name, share in shares.items()}


class Quoted(str):
    """A text that YAML has in double quotes."""

    __slots__ = ()


class Inline(dict[str, Any]):
    """A mapping that YAML has on one line."""


class _Dumper(yaml.SafeDumper):  # type: ignore[misc] # PyYAML has no types
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def check_simple_key(self) -> bool:
        # a long name would otherwise become a key of several lines
        return True

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        # PyYAML would escape characters beyond the basic plane, and fold long texts
        del split
        self.write_indicator(quoted(text), True)


class _Indented(_Dumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        del indentless
        return super().increase_indent(flow, False)


for _kind, _represent in {
    Quoted: lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'),
    Decimal: lambda dumper, share: dumper.represent_scalar("tag:yaml.org,2002:float", text_of(share)),
    tuple: lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True),
    Inline: lambda dumper, items: dumper.represent_mapping("tag:yaml.org,2002:map", items, flow_style=True),
}.items():
    _Dumper.add_representer(_kind, _represent)


def yaml_text(value: Any, *, indent_lists: bool = True) -> str:
    """Return a value in YAML, keys in their own order.

    Args:
        value: dictionaries, lists, numbers and texts, and what the head of this file lists.
        indent_lists: the items of a list stand two columns to the right of its key, and not below it.
    """
    dumper = _Indented if indent_lists else _Dumper
    text: str = yaml.dump(
        value, Dumper=dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text


def json_text(value: Any) -> str:
    """Return a value without floats in JSON, indented."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def quoted(text: str) -> str:
    """Return a text in double quotes, as YAML, JSON and Python all read it. It holds printable characters only."""
    return json.dumps(text, ensure_ascii=False)


def comment(lines: Iterable[str]) -> str:
    """Return lines as comments of YAML and Python."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def block(lines: Iterable[str]) -> str:
    """Return lines as a text that ends with a line break."""
    return "".join(f"{line}\n" for line in lines)
