import re
from pathlib import Path

import pandas as pd
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.sweep.table_cells import check_ids, header_of, id_column, read_cells

FILE = Path("ratios.csv")


@pytest.mark.parametrize(("mark", "called"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_named(tmp_path, mark, called):
    path = tmp_path / "ratios.csv"
    path.write_text(f"run{mark}web{mark}code\nr0{mark}0,25{mark}0,75\n")
    with pytest.raises(TikmixError, match=rf"ratios\.csv, line 1: .* separated by {called}, expected commas"):
        id_column(path, header_of(read_cells(path)), ["run"])


@pytest.mark.parametrize(
    ("column", "meant"), [("Run", "run"), ("RUN", "run"), ("Run ID", "run_id"), ("runId", "run_id"), ("Index", "index")]
)
def test_an_id_column_that_is_spelled_otherwise_is_named_with_the_name_it_needs(column, meant):
    with pytest.raises(TikmixError, match=rf"no column of run ids.*; if '{column}' is that, call it '{meant}'\.$"):
        id_column(FILE, ["web", column], ["run"])


def test_no_other_column_is_taken_for_one_of_ids():
    with pytest.raises(TikmixError, match=r"Give each run an id, the same in both files\.$"):
        id_column(FILE, ["web", "runner", "code"], ["run"])


@pytest.mark.parametrize("run", ["mean", "Average", "std", "TOTAL", "median", "mean:"])
def test_a_row_of_statistics_is_no_run(run):
    with pytest.raises(TikmixError, match=rf"ratios\.csv, line 3: '{re.escape(run)}' .* looks like a statistic"):
        check_ids(FILE, pd.Series(["r0", run], index=[2, 3]), "run")


def test_a_run_that_is_called_after_more_than_a_statistic_is_one():
    check_ids(FILE, pd.Series(["meandering", "max-weight", "total_0"], index=[2, 3, 4]), "run")
