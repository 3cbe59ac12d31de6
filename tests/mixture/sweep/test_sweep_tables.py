import logging
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.sweep.responses import Responses, responses_of, tables_of
from tikmix_pipeline.mixture.sweep.tables import (
    aligned,
    read_responses,
)

RATIOS = "run,books,code\nr1,0.25,0.75\nr2,0.5,0.5\nr3,1,0\n"
METRICS = "run,facts,sums\nr3,3.0,30\nr1,1.0,10\nr2,2.0,20\n"


@pytest.fixture
def read(tmp_path):
    def write_and_read(ratios=RATIOS, metrics=METRICS, **names):
        for name, text in (("ratios.csv", ratios), ("metrics.csv", metrics)):
            (tmp_path / name).write_text(text, encoding="utf-8")
        return read_responses(tmp_path / "ratios.csv", tmp_path / "metrics.csv", **names)

    return write_and_read


@pytest.fixture
def refusal(read):
    def refuse(*tables, **names):
        with pytest.raises(TikmixError) as caught:
            read(*tables, **names)
        return str(caught.value)

    return refuse


def test_runs_are_joined_on_their_id(read):
    responses = read()
    assert responses.runs == ("r1", "r2", "r3")
    assert responses.domains == ("books", "code")
    assert responses.targets == ("facts", "sums")
    assert responses.response_NT.tolist() == [[1, 10], [2, 20], [3, 30]]
    assert responses.weights_NK.tolist() == [[0.25, 0.75], [0.5, 0.5], [1, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 12), st.integers(1, 6))
@settings(deadline=None, max_examples=25)
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path_factory, seed, rows, domains, targets):
    rng = np.random.default_rng(seed)
    written = Responses(
        runs=tuple(f"{n:04d}" for n in rng.permutation(rows)),
        domains=tuple(f"domain {k}" for k in range(domains)),
        targets=tuple(f"target, {t}" for t in range(targets)),
        weights_NK=rng.dirichlet(np.full(domains, 0.3), size=rows),
        response_NT=rng.normal(size=(rows, targets)) * 10.0 ** rng.integers(-9, 9),
    )
    folder = tmp_path_factory.mktemp("tables")
    for name, table in zip(("ratios", "metrics"), tables_of(written), strict=True):
        table.to_csv(folder / f"{name}.csv", index=False)
    back = read_responses(folder / "ratios.csv", folder / "metrics.csv")
    assert (sorted(back.runs), back.domains) == (sorted(written.runs), tuple(sorted(written.domains)))
    columns = [written.domains.index(domain) for domain in back.domains]
    rows = [written.runs.index(run) for run in back.runs]
    assert back.targets == written.targets
    assert np.array_equal(back.weights_NK, written.weights_NK[rows][:, columns])
    assert np.array_equal(back.response_NT, written.response_NT[rows])


@pytest.mark.parametrize("seed", range(4))
def test_neither_the_order_of_rows_and_columns_nor_what_runs_are_called_changes_what_is_read(tmp_path, seed):
    rng, generator = np.random.default_rng(seed), np.random.default_rng(9)
    weights = generator.dirichlet(np.ones(3), size=12)
    weights[4] = weights[7]  # a replicate
    tables = {"ratios": weights, "metrics": generator.normal(size=(12, 2))}
    found = []
    for order in (np.arange(12), rng.permutation(12)):
        names = rng.permutation(100)[:12]
        for (name, values), columns in zip(tables.items(), (["web", "code", "books"], ["sums", "facts"]), strict=True):
            frame = pd.DataFrame(values, columns=columns, index=pd.Index(names, name="run"))
            frame.iloc[order][rng.permutation(columns)].to_csv(tmp_path / f"{name}.csv")
        found.append(read_responses(tmp_path / "ratios.csv", tmp_path / "metrics.csv"))
    one, other = found
    assert (one.domains, one.targets) == (other.domains, other.targets)
    assert np.array_equal(one.weights_NK, other.weights_NK)
    assert np.array_equal(one.response_NT, other.response_NT)


@pytest.mark.parametrize("name", ["phase_{}_{}", "phase{}/{}", "Stage-{}.{}"])
def test_a_mixture_per_phase_has_its_part_of_the_run(read, refusal, name):
    header = ",".join(["run", *(name.format(phase, domain) for phase in (0, 1) for domain in ("books", "code"))])
    found = read(f"{header}\nr1,0.25,0.75,1,0\nr2,0.5,0.5,0.5,0.5\nr3,1,0,0,1\n")
    assert found.weights_NK.sum(axis=1) == pytest.approx(1)
    assert sorted(map(tuple, found.weights_NK.tolist())) == [(0.125, 0.375, 0.5, 0), (0.25,) * 4, (0.5, 0, 0, 0.5)]
    assert "sum to 0.9" in refusal(f"{header}\nr1,0.25,0.75,1,0\nr2,0.5,0.5,0.5,0.4\n")
    one = read(f"{header}\nr1,0.25,0.25,0.25,0.25\nr2,0.7,0.1,0.1,0.1\n")
    assert one.weights_NK.max() == 0.7, "names alone make no phases"


def test_what_is_better_the_higher_has_its_sign_turned_and_it_is_said(read, caplog):
    caplog.set_level(logging.INFO)
    metrics = METRICS.replace("facts", "mmlu_acc").replace("sums", "mmlu_bpb")
    assert read(metrics=metrics).response_NT.tolist() == [[-1, 10], [-2, 20], [-3, 30]]
    assert "the higher the better: 'mmlu_acc', whose sign is turned from here on; the lower: 'mmlu_bpb'" in caplog.text
    assert "by their names (sweep.table.higher_is_better says otherwise)" in caplog.text
    assert read(metrics=metrics, higher_is_better=["mmlu_bpb"]).response_NT.tolist() == [[1, -10], [2, -20], [3, -30]]


def test_a_column_that_is_no_metric_is_asked_about_and_not_optimised(read, refusal):
    metrics = "run,facts,seed,train_step,sums\nr1,1.0,7,2000,10\nr2,2.0,7,2017,20\nr3,3.0,7,2034,30\n"
    asked = refusal(metrics=metrics)
    assert "metrics.csv: 'seed', 'train_step' look like no metric" in asked
    assert asked.endswith("sweep.table.targets=facts+sums")
    assert read(metrics=metrics, targets=["sums", "facts"]).targets == ("facts", "sums")
    assert read(metrics=metrics, targets=["seed"]).targets == ("seed",)


def test_frames_are_joined_on_the_run_and_runs_that_failed_are_left_out(read):
    responses = read()
    ratios, metrics = tables_of(responses)
    back = responses_of(ratios, metrics.iloc[::-1])
    assert back.runs == responses.runs
    assert np.array_equal(back.response_NT, responses.response_NT)
    metrics.loc[1, "sums"] = np.nan
    assert responses_of(ratios, metrics.iloc[:2]).runs == ("r1",)
    metrics.loc[1, "sums"] = np.inf
    assert responses_of(ratios, metrics).runs == ("r1", "r3")
    with pytest.raises(TikmixError, match="None of the sweep's 3 candidates has a measured response"):
        responses_of(ratios, metrics.iloc[1:2])


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("run,name,index,Unnamed: 0,books,code", ["r1,swarm-1,7,0,0.25,0.75", "r2,swarm-2,8,1,0.5,0.5"]),
        (",run,books,code", ["0,r1,0.25,0.75", "1,r2,0.5,0.5"]),
        ("run_id,books,code", ["r1,0.25,0.75", "r2,0.5,0.5"]),
        ("books,index,code", ["0.25,r1,0.75", "0.5,r2,0.5"]),
        ("run,run_id,books,code", ["r1,x,0.25,0.75", "r2,y,0.5,0.5"]),
    ],
)
def test_id_columns_and_columns_that_say_nothing_are_told_from_domains(read, header, rows):
    responses = read("\n".join([header, *rows]))
    assert responses.runs == ("r1", "r2")
    assert responses.domains == ("books", "code")


def test_an_id_column_that_both_files_have_is_the_one_to_join_on(read):
    responses = read("run,index,books,code\nx,r1,0.25,0.75\ny,r2,0.5,0.5\n", METRICS.replace("run", "index"))
    assert responses.runs == ("r1", "r2")


def test_prefixes_and_suffixes_are_cut_from_names(read):
    responses = read(
        RATIOS.replace("books", "train_books").replace("code", "train_code"),
        METRICS.replace("facts", "metric/facts_loss").replace("sums", "metric/sums_loss"),
        domain_prefix="train_",
        metric_prefix="metric/",
        metric_suffix="_loss",
    )
    assert responses.domains == ("books", "code")
    assert responses.targets == ("facts", "sums")


@pytest.mark.parametrize("weights", ["0.251,0.752", "0.2475,0.7475", "0.2525,0.7525"])
def test_weights_off_by_rounding_are_renormalised(read, weights):
    responses = read(RATIOS.replace("0.25,0.75", weights))
    assert responses.weights_NK.sum(axis=1) == pytest.approx(1, abs=1e-15)
    first, second = map(float, weights.split(","))
    assert responses.weights_NK[0, 0] / responses.weights_NK[0, 1] == pytest.approx(first / second)


@pytest.mark.parametrize("weights", ["0.25,0.7", "25,75", "0.2,0.7949", "0,0"])
def test_weights_that_do_not_sum_to_one_are_refused_with_their_line(refusal, weights):
    message = refusal(RATIOS.replace("0.5,0.5", weights))
    assert re.search(r"ratios\.csv, line 3: the weights of the run 'r2' sum to", message)


@pytest.mark.parametrize("cell", ["-0.1", "nan", "", "inf", "much", "0,5"])
def test_a_weight_that_is_none_is_refused_with_line_and_column(refusal, cell):
    quoted = f'"{cell}"' if "," in cell else cell
    message = refusal(RATIOS.replace("0.5,0.5", f"0.5,{quoted}"))
    assert f"ratios.csv, line 3, column 'code': expected a weight from 0 to 1, found '{cell}'" in message


def test_a_score_that_is_no_number_is_refused_with_line_and_column(refusal):
    assert "metrics.csv, line 4, column 'sums': expected a number" in refusal(metrics=METRICS.replace("20", "1.2.3"))


@pytest.mark.parametrize("cell", ["1e200", "-1e300", "2.5e101"])
def test_a_score_that_nothing_can_be_computed_with_is_refused_with_line_and_column(refusal, cell):
    message = refusal(metrics=METRICS.replace("20", cell))
    assert f"metrics.csv, line 4, column 'sums': expected a score of at most 1e+100, found '{cell}'" in message


def test_a_run_far_from_all_others_is_left_out_with_its_line_as_the_file_has_it(read, caplog):
    draw = np.random.default_rng(0)
    books, noise = draw.uniform(size=24), draw.normal(0, 0.01, size=24)
    ratios = "\n".join(["run,books,code", *(f"r{n:02d},{books[n]},{1 - books[n]}" for n in range(24))])
    rows = [f"r{n:02d},{0.5 + 0.1 * books[n] + noise[n]}" for n in range(24)]
    metrics = "\n".join(["run,qa_acc", *rows[:5], "r05,-1", *rows[6:]])
    assert len(read(ratios, "\n".join(["run,qa_acc", *rows]))) == 24
    found = read(ratios, metrics)
    assert "r05" not in found.runs
    assert len(found) == 23
    assert "line 7, column 'qa_acc': 'r05' has -1, where the median is 0.5" in caplog.text


def test_the_same_runs_under_other_ids_are_left_out_with_a_warning(read, caplog):
    copied = read(RATIOS + RATIOS[15:].replace("r", "q"), METRICS + METRICS[14:].replace("r", "q"))
    once = read()
    assert copied.runs == once.runs
    assert np.array_equal(copied.response_NT, once.response_NT)
    assert "metrics.csv: 3 of 6 runs are left out, as they are copies" in caplog.text
    assert "'q1' is 'r1'" in caplog.text


@pytest.mark.parametrize(("column", "cells"), [("seed", "000"), ("lr", ["1e-4"] * 3), ("train_steps", "789")])
def test_a_column_of_the_mixtures_that_is_no_domain_is_refused(refusal, column, cells):
    rows = [f"{row},{cell}" for row, cell in zip(RATIOS.split(), [column, *cells], strict=True)]
    assert f"ratios.csv: '{column}' looks like no domain" in refusal("\n".join(rows))


def test_a_domain_is_one_whatever_it_is_called_where_the_mixtures_need_it(read):
    assert read(RATIOS.replace("books", "world").replace("code", "time")).domains == ("time", "world")
    told = RATIOS.replace("books", "train_books").replace("code", "train_code").split()
    rows = [f"{row},{cell}" for row, cell in zip(told, ["train_seed", 0, 0, 0], strict=True)]
    assert read("\n".join(rows), domain_prefix="train_").domains == ("books", "code", "seed")


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "inf", "NA"])
def test_a_run_without_all_scores_is_left_out_with_a_warning_that_names_it(read, caplog, cell):
    with caplog.at_level(logging.WARNING):
        responses = read(metrics=METRICS.replace("20", cell))
    assert responses.runs == ("r1", "r3")
    assert "1 of 3 runs are left out" in caplog.text
    assert "'r2'" in caplog.text


def test_runs_of_one_file_alone_are_left_out_and_counted(read, caplog):
    with caplog.at_level(logging.WARNING):
        responses = read(RATIOS + "r4,0,1\nr5,0,1\n", METRICS + "r6,1,1\n")
    assert responses.runs == ("r1", "r2", "r3")
    assert "ratios.csv: 2 of 5 runs are left out" in caplog.text
    assert "metrics.csv: 1 of 4 runs are left out" in caplog.text


@pytest.mark.parametrize(
    ("ratios", "metrics", "expected"),
    [
        ("", METRICS, r"ratios\.csv has no rows"),
        ("run,books,code\n", METRICS, r"ratios\.csv has no rows"),
        (RATIOS, "\n\n", r"metrics\.csv has no rows"),
        ("id,books\n1,1\n", METRICS, r"ratios\.csv has no column of run ids: expected one of 'run', 'run_id', 'index'"),
        (RATIOS, METRICS.replace("run", "seed"), r"metrics\.csv has no column of run ids"),
        ("run\nr1\n", METRICS, r"ratios\.csv has no columns beside 'run'"),
        (RATIOS.replace("code", "books"), METRICS, r"ratios\.csv has the column 'books' twice"),
        (RATIOS + "r1,0,1\n", METRICS, r"ratios\.csv, line 5: the id 'r1' in the column 'run' is that of line 2 too"),
        (RATIOS + ",0,1\n", METRICS, r"ratios\.csv, line 5: the run has no id in the column 'run'"),
        (RATIOS + "r4,0\n", METRICS, r"ratios\.csv, line 5: 2 cells, but the header has 3"),
        ("\n" + RATIOS + "\n,,\nr4,0,1,\n", METRICS, r"ratios\.csv, line 8: 4 cells, but the header has 3"),
        (RATIOS, "run,facts\nx,1\ny,2\n", r"No run is in both files: .*'r1', 'r2', 'r3', .*'x', 'y'"),
        (RATIOS, "run,facts\nr1,\nr2,nan\n", r"metrics\.csv: every run lacks a score.* line 2"),
    ],
)
def test_a_table_at_fault_is_refused_by_name(refusal, ratios, metrics, expected):
    assert re.search(expected, refusal(ratios, metrics))


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(TikmixError, match=r"There is no file .*nowhere\.csv"):
        read_responses(tmp_path / "nowhere.csv", tmp_path / "nowhere.csv")


def test_a_file_that_is_no_text_is_refused(tmp_path, read):
    read()
    (tmp_path / "ratios.csv").write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(TikmixError, match=r"ratios\.csv is not a CSV file in UTF-8"):
        read_responses(tmp_path / "ratios.csv", tmp_path / "metrics.csv")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"domain_prefix": "train_"}, r"ratios\.csv, column 'books': sweep\.table\.domain_prefix = 'train_'"),
        ({"domain_prefix": "books"}, r"ratios\.csv, column 'books': sweep\.table\.domain_prefix"),
        ({"metric_prefix": "f"}, r"metrics\.csv, column 'sums': sweep\.table\.metric_prefix"),
        ({"metric_suffix": "ts"}, r"metrics\.csv, column 'sums': sweep\.table\.metric_suffix"),
    ],
)
def test_a_prefix_that_does_not_fit_is_refused_with_file_and_column(refusal, names, expected):
    assert re.search(expected, refusal(**names))


def test_a_test_is_put_in_the_order_of_the_columns_to_learn_from(read):
    learn = read()
    shuffled = read("code,run,books\n0.75,t1,0.25\n0,t2,1\n", "run,sums,facts\nt1,10,1\nt2,20,2\n")
    test = aligned(shuffled, learn)
    assert (test.runs, test.domains, test.targets) == (("t1", "t2"), learn.domains, learn.targets)
    assert test.weights_NK.tolist() == [[0.25, 0.75], [1, 0]]
    assert test.response_NT.tolist() == [[1, 10], [2, 20]]


@pytest.mark.parametrize(
    ("ratios", "metrics", "expected"),
    [
        (
            RATIOS.replace("code", "train_code"),
            METRICS,
            r"^sweep\.table: the domains of sweep\.table\.test_ratios are not those of sweep\.table\.ratios: "
            r"it lacks 'code' and has besides 'train_code'\. .*sweep\.table\.domain_prefix is cut",
        ),
        (
            RATIOS,
            "run,facts\nr1,1\n",
            r"the targets of sweep\.table\.test_metrics .*: it lacks 'sums'\. .*sweep\.table\.metric_prefix and "
            r"sweep\.table\.metric_suffix are cut",
        ),
        (RATIOS, "run,facts,sums,odd\nr1,1,2,3\n", r"sweep\.table\.test_metrics .*: it has besides 'odd'\. "),
    ],
)
def test_a_test_of_other_columns_is_refused_with_the_side_and_the_names(read, ratios, metrics, expected):
    learn = read()
    with pytest.raises(TikmixError, match=expected):
        aligned(read(ratios, metrics), learn)
