"""Tables of mixtures and scores, in the columns of Olmix (`ratios.csv`, `metrics.csv`) and of RegMix.

Each file has a column of run ids, `run`, else `run_id`, else `index`; `name`, `index` and unnamed columns say nothing;
all others are domains or targets. The two files are joined on the id, never on the position of a row. Every complaint
names the file and the line or column, for such tables come from many hands.

Axes: N runs, K domains, T targets.
"""

import csv
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tikmix_pipeline.errors import TikmixError, quoted
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.responses import Responses

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMNS = ("run", "run_id", "index")
"""Columns that may hold the id of a run, the first that is there."""

ROUNDING = 5e-3
"""Weights that were written with few decimals may sum to this far from 1; they are renormalised."""

_IDLE_COLUMNS = {*ID_COLUMNS, "name"}
_EXACT = 1e-9
_MISSING = {"", "na", "n/a", "#n/a", "nan", "none", "null"}
_SHOWN = 5

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Table:
    """The cells of a CSV file that matter, and where they stand."""

    path: Path
    columns: tuple[str, ...]
    lines: dict[str, int]
    """The line of each run's id, in the order of the file."""
    values: dict[str, list[float]]


def read_responses(
    ratios: Path, metrics: Path, *, domain_prefix: str = "", metric_prefix: str = "", metric_suffix: str = ""
) -> Responses:
    """Read mixtures and their scores.

    A run that only one of the files has, or whose scores are not all finite, is left out with a warning.

    Args:
        ratios: one row per run, its id and the share of each domain.
        metrics: one row per run, its id and a loss per target; lower is better.
        domain_prefix: cut from the domains' names; every one has to start with it.
        metric_prefix: cut from the targets' names.
        metric_suffix: cut from the ends of the targets' names.

    Returns:
        The runs of both files in the order of `ratios`; each mixture sums to 1.

    Raises:
        TikmixError: a file is missing, empty, has no id column, an id twice or a cell that is no number; a weight is
            negative, a mixture does not sum to 1 within `ROUNDING`; a prefix does not fit; or no run is in both files.
    """
    ratio_rows, metric_rows = _read_rows(ratios), _read_rows(metrics)
    id_columns = _id_columns(ratio_rows[0][1], ratios, metric_rows[0][1], metrics)
    mixtures = _table(ratios, ratio_rows, id_columns[0], _weight)
    scores = _table(metrics, metric_rows, id_columns[1], _score)
    domains = _cut_names(mixtures, "domain", prefix=("sweep.table.domain_prefix", domain_prefix))
    targets = _cut_names(
        scores,
        "target",
        prefix=("sweep.table.metric_prefix", metric_prefix),
        suffix=("sweep.table.metric_suffix", metric_suffix),
    )
    runs = _usable_runs(mixtures, scores)
    weights_NK = np.array([mixtures.values[run] for run in runs], dtype=np.float64)
    return Responses(
        runs=tuple(runs),
        domains=domains,
        targets=targets,
        weights_NK=_normalised(weights_NK, mixtures, runs),
        response_NT=np.array([scores.values[run] for run in runs], dtype=np.float64),
    )


def ratios_frame(responses: Responses) -> "pd.DataFrame":
    """Return the mixtures in Olmix's columns: `run`, then the domains."""
    return _frame(responses.runs, responses.domains, responses.weights_NK)


def metrics_frame(responses: Responses) -> "pd.DataFrame":
    """Return the responses in Olmix's columns: `run`, then the targets, in the row order of `ratios_frame`."""
    return _frame(responses.runs, responses.targets, responses.response_NT)


def responses_of(ratios: "pd.DataFrame", metrics: "pd.DataFrame") -> Responses:
    """Return what two frames in Olmix's columns hold, joined on `run`, in the order of `ratios`.

    A run without a row in `metrics`, or with one that is not all finite, is left out.

    Raises:
        TikmixError: no run is left.
    """
    domains, targets = tuple(ratios.columns.drop("run")), tuple(metrics.columns.drop("run"))
    scores = metrics.assign(run=metrics["run"].astype(str)).set_index("run")
    scores = scores[np.isfinite(scores.to_numpy(dtype=np.float64)).all(axis=1)]
    runs = ratios["run"].astype(str)
    is_measured = runs.isin(scores.index).to_numpy()
    kept = tuple(runs[is_measured])
    if not kept:
        raise TikmixError(
            f"None of the sweep's {len(runs)} candidates has a measured response. See the log for why, mend it and run "
            "sweep again."
        )
    return Responses(
        runs=kept,
        domains=domains,
        targets=targets,
        weights_NK=ratios.loc[is_measured, list(domains)].to_numpy(dtype=np.float64),
        response_NT=scores.loc[list(kept), list(targets)].to_numpy(dtype=np.float64),
    )


def aligned(test: Responses, to: Responses, source: str) -> Responses:
    """Return test runs with their domains and targets in the order of those to learn from, matched by name.

    Args:
        test: runs that no surrogate is fitted on.
        to: the runs to learn from.
        source: what the test was read from, for the complaint.

    Raises:
        TikmixError: the test lacks a domain or a target, or has one more.
    """
    domains = _places(test.domains, to.domains, source, "ratios", "domain", ["domain_prefix"])
    targets = _places(test.targets, to.targets, source, "metrics", "target", ["metric_prefix", "metric_suffix"])
    return Responses(test.runs, to.domains, to.targets, test.weights_NK[:, domains], test.response_NT[:, targets])


def matching_domains(domains: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Return for each target the domain of the same name, where there is one.

    Domains and targets may each share a beginning and an end, as `train_the_pile_arxiv` and
    `metric/the_pile_arxiv_val_loss` do. Of all ways to cut those off at a break between words, the one that pairs the
    most names is taken, the least cut among equals.
    """
    best: dict[str, str] = {}
    cut_domains = [_cut_all(domains, front, back) for front, back in _shared_ends(domains)]
    cut_targets = [_cut_all(targets, front, back) for front, back in _shared_ends(targets)]
    for of_domain, of_target in itertools.product(cut_domains, cut_targets):
        pairs = {of_target[core]: of_domain[core] for core in of_target if core in of_domain}
        if len(pairs) > len(best):
            best = pairs
    return {target: best[target] for target in targets if target in best}


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows that are not blank, the header first, each with its line."""
    if not path.is_file():
        raise TikmixError(f"There is no file {path}. Set sweep.table to CSV files with one row per run.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TikmixError(f"{path} is not a CSV file in UTF-8 ({error}). Export the table again as one.") from error
    if len(rows) < 2:
        raise TikmixError(f"{path} has no rows. It needs a header, and then one row per run.")
    return rows


def _id_columns(ratio_header: list[str], ratios: Path, metric_header: list[str], metrics: Path) -> tuple[str, str]:
    """Return the first id column that both files have, else the first of each."""
    in_both = [column for column in ID_COLUMNS if column in ratio_header and column in metric_header]
    if in_both:
        return in_both[0], in_both[0]
    return _id_column(ratio_header, ratios), _id_column(metric_header, metrics)


def _id_column(header: list[str], path: Path) -> str:
    for column in ID_COLUMNS:
        if column in header:
            return column
    raise TikmixError(
        f"{path} has no column of run ids: expected one of {quoted(ID_COLUMNS)}, found {quoted(header[:_SHOWN])}"
        f"{', ...' if len(header) > _SHOWN else ''}. Give each run an id, the same in both files."
    )


def _table(path: Path, rows: list[tuple[int, list[str]]], id_column: str, parse: Callable[[str, str], float]) -> _Table:
    """Parse all cells of the columns that are neither an id nor idle."""
    header = rows[0][1]
    places = [
        place
        for place, name in enumerate(header)
        if name and name not in _IDLE_COLUMNS and not name.startswith("Unnamed")
    ]
    columns = tuple(header[place] for place in places)
    twice = sorted({name for name in (id_column, *columns) if header.count(name) > 1})
    if twice or not columns:
        fault = f"has the column {quoted(twice)} twice" if twice else f"has no columns beside '{id_column}'"
        raise TikmixError(f"{path} {fault}. It needs one column for each domain or target, with a name of its own.")
    table = _Table(path, columns, {}, {})
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise TikmixError(f"{path}, line {line}: {len(row)} cells, but the header has {len(header)}.")
        run = row[header.index(id_column)]
        if not run:
            raise TikmixError(f"{path}, line {line}: the run has no id in the column '{id_column}'. Give it one.")
        if run in table.lines:
            raise TikmixError(
                f"{path}, line {line}: the id '{run}' in the column '{id_column}' is that of line {table.lines[run]} "
                "too. Give every run an id of its own."
            )
        table.lines[run] = line
        table.values[run] = [parse(row[place], f"{path}, line {line}, column '{header[place]}'") for place in places]
    return table


def _number(cell: str) -> float | None:
    """Return the number, NaN for a missing value and None for any other text."""
    if cell.lower() in _MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


def _weight(cell: str, place: str) -> float:
    weight = _number(cell)
    if weight is None or not math.isfinite(weight) or weight < 0:
        raise TikmixError(f"{place}: expected a weight from 0 to 1, found '{cell}'. A domain that is left out has 0.")
    return weight


def _score(cell: str, place: str) -> float:
    score = _number(cell)
    if score is None:
        raise TikmixError(f"{place}: expected a number, found '{cell}'. Leave the cell empty if it was not measured.")
    return score


def _cut_names(
    table: _Table, noun: str, *, prefix: tuple[str, str], suffix: tuple[str, str] = ("", "")
) -> tuple[str, ...]:
    """Return the columns' names without prefix and suffix, each given as (parameter, text)."""
    (prefix_parameter, start), (suffix_parameter, end) = prefix, suffix
    for column in table.columns:
        for parameter, text, fits in (
            (prefix_parameter, start, column.startswith(start)),
            (suffix_parameter, end, column.endswith(end)),
        ):
            if not fits or (text and len(column) <= len(start) + len(end)):
                raise TikmixError(
                    f"{table.path}, column '{column}': {parameter} = '{text}' leaves no {noun} of that name, as it "
                    f"is cut from the names of all {noun}s. Make it shorter, or take the column out of the file."
                )
    return tuple(column[len(start) : len(column) - len(end)] for column in table.columns)


def _usable_runs(mixtures: _Table, scores: _Table) -> list[str]:
    """Return the runs with a mixture and finite scores; warn of all others."""
    common = [run for run in mixtures.lines if run in scores.lines]
    if not common:
        raise TikmixError(
            f"No run is in both files: {mixtures.path} has the ids {_some(list(mixtures.lines))}, {scores.path} has "
            f"{_some(list(scores.lines))}. Give the same run the same id in both."
        )
    for table, other in ((mixtures, scores), (scores, mixtures)):
        alone = [run for run in table.lines if run not in other.lines]
        if alone:
            _LOG.warning(
                "%s: %d of %d runs are left out, as %s does not have them: %s",
                *(table.path, len(alone), len(table.lines), other.path, _some(alone)),
            )
    unmeasured = [run for run in common if not all(map(math.isfinite, scores.values[run]))]
    if len(unmeasured) == len(common):
        raise TikmixError(
            f"{scores.path}: every run lacks a score, or has one that is not finite, first in line "
            f"{scores.lines[common[0]]}. Take the columns that were not measured out of the file."
        )
    if unmeasured:
        _LOG.warning(
            "%s: %d of %d runs are left out, as a score of theirs is missing or not finite: %s",
            *(scores.path, len(unmeasured), len(common), _some(unmeasured)),
        )
    left_out = set(unmeasured)
    return [run for run in common if run not in left_out]


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


def _places(
    found: Sequence[str], expected: Sequence[str], source: str, side: str, noun: str, cut: Sequence[str]
) -> list[int]:
    """Return where each expected name is among the found ones, which have to be the same but for their order."""
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    if missing or extra:
        faults = [f"{fault} {_some(names)}" for fault, names in (("lacks", missing), ("has besides", extra)) if names]
        raise TikmixError(
            f"{source}: the {noun}s of sweep.table.test_{side} are not those of sweep.table.{side}: it "
            f"{' and '.join(faults)}. Give both files the same {noun}s, in any order; "
            f"{' and '.join(f'sweep.table.{name}' for name in cut)} {'is' if len(cut) == 1 else 'are'} cut from the "
            "names in both."
        )
    return [found.index(name) for name in expected]


def _some(runs: Sequence[str]) -> str:
    more = f" and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return quoted(runs[:_SHOWN]) + more


def _frame(runs: Sequence[str], columns: Sequence[str], values: FloatArray) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.DataFrame(values, columns=list(columns))
    frame.insert(0, "run", list(runs))
    return frame


def _shared_ends(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return how much may be cut from the front and the back of all names, at breaks between words, the least first."""
    starts, ends = _shared_breaks(names), _shared_breaks([name[::-1] for name in names])
    return sorted(itertools.product(starts, ends), key=sum)


def _shared_breaks(names: Sequence[str]) -> list[int]:
    """Return the lengths of the beginnings that all names share and that end where a word does."""
    shared = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return [0, *(place for place, letters in enumerate(shared, start=1) if not letters[0].isalnum())]


def _cut_all(names: Sequence[str], front: int, back: int) -> dict[str, str]:
    """Return the names by what is left of them."""
    return {name[front : len(name) - back]: name for name in names if front + back < len(name)}
