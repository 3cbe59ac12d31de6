"""Tables of mixtures and scores, in the columns of Olmix (`ratios.csv`, `metrics.csv`) and of RegMix.

Each file has a column of run ids, `run`, else `run_id`, else `index`; `name`, `index` and unnamed columns say nothing;
all others are domains or targets. The two files are joined on the id, never on the position of a row. Every complaint
names the file and the line or column, for such tables come from many hands.

Nor does the position of a row or a column, or what a run is called, decide anything later: domains and targets come in
the order of their names, and runs in that of their mixtures.

Axes: N runs, K domains, T targets.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tikmix_pipeline.errors import TikmixError, quoted
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.equal_runs import without_copies
from tikmix_pipeline.mixture.sweep.far_runs import near_runs
from tikmix_pipeline.mixture.sweep.metric_columns import chosen_targets, is_higher_better
from tikmix_pipeline.mixture.sweep.metric_names import is_no_metric
from tikmix_pipeline.mixture.sweep.phases import phases_of
from tikmix_pipeline.mixture.sweep.responses import Responses, tables_of
from tikmix_pipeline.mixture.sweep.table_cells import ID_COLUMNS, check_ids, header_of, id_column, read_cells
from tikmix_pipeline.parameters.sweep import TableParameters

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 5e-3
"""Weights that were written with few decimals may sum to this far from 1; they are renormalised."""

_IDLE_COLUMNS = {*ID_COLUMNS, "name"}
_EXACT = 1e-9
_LARGEST = 1e100
"""Larger numbers are no scores, and sums of their squares overflow."""
_MISSING = {"", "na", "n/a", "#n/a", "nan", "none", "null"}
_SHOWN = 5

_LOG = logging.getLogger(__name__)


def read_sweep_tables(root: Path, table: TableParameters) -> tuple["pd.DataFrame", ...]:
    """Read a user's mixtures and scores, and then those of the test if there are any; `root` is of relative paths.

    Raises:
        TikmixError: as `read_responses`, or the test has other domains or targets.
    """
    told = ("domain_prefix", "metric_prefix", "metric_suffix", "targets", "higher_is_better", "far_runs")
    named = {name: getattr(table, name) for name in told}
    pairs = [(table.ratios, table.metrics), (table.test_ratios, table.test_metrics)]
    found = [read_responses(root / ratios, root / metrics, **named) for ratios, metrics in pairs if ratios and metrics]
    found[1:] = [aligned(test, found[0]) for test in found[1:]]
    return tuple(frame for one in found for frame in tables_of(one))


def read_responses(
    ratios: Path,
    metrics: Path,
    *,
    domain_prefix: str = "",
    metric_prefix: str = "",
    metric_suffix: str = "",
    targets: Sequence[str] | None = None,
    higher_is_better: Sequence[str] | Literal["auto"] = "auto",
    far_runs: Literal["leave_out", "keep"] = "leave_out",
) -> Responses:
    """Read mixtures and their scores.

    The files have a row per run: its id, and the share of each domain or a score per target. What is better the higher
    has its sign turned. A run that only one of them has, whose scores are not all finite, or far from all others', or
    that is a copy of another, is left out with a warning, and each mixture sums to 1. Prefixes and suffix are cut from
    the names of domains and targets.

    Raises:
        TikmixError: a file is missing, empty, has no id column, an id twice or a cell that is no number; a weight is
            negative, a mixture does not sum to 1 within `ROUNDING`; a prefix does not fit; no run is in both files; or
            as `check_ids`, `chosen_targets`, `is_higher_better` and `near_runs`.
    """
    ratio_cells, metric_cells = read_cells(ratios), read_cells(metrics)
    ratio_header, metric_header = header_of(ratio_cells), header_of(metric_cells)
    mixtures = _Table.of(ratios, ratio_cells, id_column(ratios, ratio_header, metric_header), _weight)
    scores = _Table.of(metrics, metric_cells, id_column(metrics, metric_header, ratio_header), _score)
    chosen = chosen_targets(metrics, list(scores.values.columns), targets)
    higher, said = is_higher_better(metrics, chosen, higher_is_better)
    _LOG.info("%s", said)
    scores = replace(scores, values=scores.values[chosen])
    domains = _cut_names(mixtures, "domain", prefix=("sweep.table.domain_prefix", domain_prefix))
    names = _cut_names(
        scores,
        "target",
        prefix=("sweep.table.metric_prefix", metric_prefix),
        suffix=("sweep.table.metric_suffix", metric_suffix),
    )
    runs = _usable_runs(mixtures, scores)
    if not domain_prefix:
        _require_domains(mixtures, runs)
    weights_NK = _weights(mixtures, domains, runs)
    values = scores.values.loc[runs]
    near = near_runs(metrics, values, scores.lines, higher, weights_NK, far_runs)
    found = Responses(tuple(runs), domains, names, weights_NK, values.to_numpy() * np.where(higher, -1.0, 1.0))
    return without_copies(metrics, _in_order_of_content(found.take(near)))


def _in_order_of_content(found: Responses) -> Responses:
    columns, targets = (sorted(range(len(names)), key=names.__getitem__) for names in (found.domains, found.targets))
    weights_NK, response_NT = found.weights_NK[:, columns], found.response_NT[:, targets]
    # runs of the same mixture in the order of their scores
    rows = np.lexsort(np.concatenate([weights_NK, response_NT], axis=1).T[::-1])
    return Responses(
        runs=tuple(found.runs[n] for n in rows),
        domains=tuple(sorted(found.domains)),
        targets=tuple(sorted(found.targets)),
        weights_NK=np.ascontiguousarray(weights_NK[rows]),
        response_NT=np.ascontiguousarray(response_NT[rows]),
    )


def aligned(test: Responses, to: Responses) -> Responses:
    """Return test runs with domains and targets in the order of those to learn from.

    Raises:
        TikmixError: the test lacks a domain or a target, or has one more.
    """
    domains = _places(test.domains, to.domains, "ratios", "domain", ["domain_prefix"])
    targets = _places(test.targets, to.targets, "metrics", "target", ["metric_prefix", "metric_suffix"])
    return Responses(test.runs, to.domains, to.targets, test.weights_NK[:, domains], test.response_NT[:, targets])


@dataclass(frozen=True, eq=False)
class _Table:
    """What a file says of each run."""

    path: Path
    values: "pd.DataFrame"
    """A row per run, under its id, and a column per domain or target."""
    lines: "pd.Series[int]"
    """Of the runs."""

    @classmethod
    def of(cls, path: Path, cells: "pd.DataFrame", id_column: str, parse: Callable[[str, str], float]) -> "_Table":
        """Parse all cells of the columns that are neither an id nor idle."""
        import pandas as pd

        header, rows = header_of(cells), cells.iloc[1:]
        columns = {
            place: name
            for place, name in enumerate(header)
            if name and name not in _IDLE_COLUMNS and not name.startswith("Unnamed")
        }
        twice = sorted({name for name in (id_column, *columns.values()) if header.count(name) > 1})
        if twice or not columns:
            fault = f"has the column {quoted(twice)} twice" if twice else f"has no columns beside '{id_column}'"
            raise TikmixError(f"{path} {fault}. It needs one column for each domain or target, with a name of its own.")
        for line, count in rows.notna().sum(axis=1).items():
            if count != len(header):
                raise TikmixError(f"{path}, line {line}: {count} cells, but the header has {len(header)}.")
        runs = rows[header.index(id_column)]
        check_ids(path, runs, id_column)
        values = [
            [
                parse(cell, f"{path}, line {line}, column '{columns[place]}'")
                for place, cell in zip(columns, row, strict=True)
            ]
            for line, row in zip(rows.index, rows[[*columns]].to_numpy(), strict=True)
        ]
        index = pd.Index(runs, dtype=object)
        return cls(
            path,
            pd.DataFrame(values, index=index, columns=list(columns.values()), dtype=np.float64),
            pd.Series(rows.index, index=index),
        )


def _score(cell: str, place: str) -> float:
    """Return the number, NaN for a missing value."""
    try:
        score = math.nan if cell.lower() in _MISSING else float(cell)
    except ValueError as error:
        raise TikmixError(
            f"{place}: expected a number, found '{cell}'. Leave the cell empty if it was not measured."
        ) from error
    if math.isfinite(score) and abs(score) > _LARGEST:
        raise TikmixError(
            f"{place}: expected a score of at most {_LARGEST:g}, found '{cell}', with which nothing can be computed. "
            "Leave the cell empty if it was not measured, or give the column in another unit."
        )
    return score


def _weight(cell: str, place: str) -> float:
    try:
        weight = float(cell)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= _LARGEST:
        raise TikmixError(f"{place}: expected a weight from 0 to 1, found '{cell}'. A domain that is left out has 0.")
    return weight


def _cut_names(
    table: _Table, noun: str, *, prefix: tuple[str, str], suffix: tuple[str, str] = ("", "")
) -> tuple[str, ...]:
    """Return the columns' names without prefix and suffix, each given as (parameter, text)."""
    (prefix_parameter, start), (suffix_parameter, end) = prefix, suffix
    for column in table.values.columns:
        for parameter, text, fits in (
            (prefix_parameter, start, column.startswith(start)),
            (suffix_parameter, end, column.endswith(end)),
        ):
            if not fits or (text and len(column) <= len(start) + len(end)):
                raise TikmixError(
                    f"{table.path}, column '{column}': {parameter} = '{text}' leaves no {noun} of that name, as it "
                    f"is cut from the names of all {noun}s. Make it shorter, or take the column out of the file."
                )
    return tuple(column[len(start) : len(column) - len(end)] for column in table.values.columns)


def _usable_runs(mixtures: _Table, scores: _Table) -> list[str]:
    """Return the runs with a mixture and finite scores; warn of all others."""
    runs = mixtures.values.index
    common = runs[runs.isin(scores.values.index)]
    if not len(common):
        raise TikmixError(
            f"No run is in both files: {mixtures.path} has the ids {quoted(runs, at_most=_SHOWN)}, {scores.path} has "
            f"{quoted(scores.values.index, at_most=_SHOWN)}. Give the same run the same id in both."
        )
    for table, other in ((mixtures, scores), (scores, mixtures)):
        alone = table.values.index.difference(other.values.index, sort=False).tolist()
        if alone:
            _LOG.warning(
                "%s: %d of %d runs are left out, as %s does not have them: %s",
                *(table.path, len(alone), len(table.values), other.path, quoted(alone, at_most=_SHOWN)),
            )
    is_measured = np.isfinite(scores.values.loc[common].to_numpy()).all(axis=1)
    if not is_measured.any():
        raise TikmixError(
            f"{scores.path}: every run lacks a score, or has one that is not finite, first in line "
            f"{scores.lines[common[0]]}. Take the columns that were not measured out of the file."
        )
    if not is_measured.all():
        unmeasured = common[~is_measured].tolist()
        _LOG.warning(
            "%s: %d of %d runs are left out, as a score of theirs is missing or not finite: %s",
            *(scores.path, len(unmeasured), len(common), quoted(unmeasured, at_most=_SHOWN)),
        )
    usable: list[str] = common[is_measured].tolist()
    return usable


def _require_domains(mixtures: _Table, runs: list[str]) -> None:
    """Refuse columns that look like none of a domain, where the others are a mixture without them."""
    values = mixtures.values.loc[runs]
    odd = [name for name in values.columns if is_no_metric(name)]
    others_N = values.drop(columns=odd).sum(axis=1).to_numpy()
    if odd and (np.abs(others_N - 1) <= ROUNDING + _EXACT).all():
        raise TikmixError(
            f"{mixtures.path}: {quoted(odd)} {'look' if len(odd) > 1 else 'looks'} like no domain, and the weights of "
            "the other columns sum to 1. Take the column out of the file, or call it otherwise if it is a domain."
        )


def _weights(mixtures: _Table, domains: Sequence[str], runs: list[str]) -> FloatArray:
    """Return rows that sum to 1; of phases that sum to 1 each, in equal parts."""
    values_NK: FloatArray = np.ascontiguousarray(mixtures.values.loc[runs].to_numpy())
    phases = [[domains.index(name) for name in members] for members in phases_of(domains).values()]
    # a table may call its domains so and have one mixture all the same
    if not phases or abs(values_NK[0].sum() - 1) <= ROUNDING:
        return _normalised(values_NK, mixtures, runs)
    weights_NK = np.empty_like(values_NK)
    for columns in phases:
        weights_NK[:, columns] = _normalised(values_NK[:, columns], mixtures, runs) / len(phases)
    return weights_NK


def _normalised(weights_NK: FloatArray, mixtures: _Table, runs: list[str]) -> FloatArray:
    """Return rows that sum to 1; those that do already stay as they are, to the last bit."""
    sum_N = weights_NK.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sum_N - 1) > ROUNDING + _EXACT)
    if len(wrong):
        n = int(wrong[0])
        others = f" (and those of {len(wrong) - 1} more runs)" if len(wrong) > 1 else ""
        raise TikmixError(
            f"{mixtures.path}, line {mixtures.lines[runs[n]]}: the weights of the run '{runs[n]}' sum to "
            f"{sum_N[n]:.6g}{others}, expected 1 within {ROUNDING:g}. Divide them by their sum if they are shares of a "
            "whole, or add the domain that is missing."
        )
    exact_N = np.abs(sum_N - 1) <= _EXACT
    return weights_NK / np.where(exact_N, 1.0, sum_N)[:, None]


def _places(found: Sequence[str], expected: Sequence[str], side: str, noun: str, cut: Sequence[str]) -> list[int]:
    """Return where each expected name is among the found ones, which have to be the same but for their order."""
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    if missing or extra:
        faults = [
            f"{fault} {quoted(names, at_most=_SHOWN)}"
            for fault, names in (("lacks", missing), ("has besides", extra))
            if names
        ]
        raise TikmixError(
            f"sweep.table: the {noun}s of sweep.table.test_{side} are not those of sweep.table.{side}: it "
            f"{' and '.join(faults)}. Give both files the same {noun}s, in any order; "
            f"{' and '.join(f'sweep.table.{name}' for name in cut)} {'is' if len(cut) == 1 else 'are'} cut from the "
            "names in both."
        )
    return [found.index(name) for name in expected]
