"""What a corpus is does not depend on the order in which anything of it is met, but where that is documented."""

import glob
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_examples import corpus_in, random_text, write_jsonl, write_wheel

from tikmix_pipeline.corpus.build import prepare_text
from tikmix_pipeline.corpus.local_files import files_below, matching_files
from tikmix_pipeline.corpus.packages import read_members
from tikmix_pipeline.corpus.records import PreparedText
from tikmix_pipeline.corpus.sources import read_source
from tikmix_pipeline.corpus.task_records import read_items
from tikmix_pipeline.corpus.tasks import split_items
from tikmix_pipeline.parameters import CorpusParameters

TEXTS = [random_text(5000 + row) for row in range(120)]
NAMES = ["a", "B", "\u00e4", "b", "_", "10", "9", "Z"]
"""As file names: locales differ about their order."""


def shuffled(values: list[Any], seed: int) -> list[Any]:
    return [values[row] for row in np.random.default_rng(seed).permutation(len(values))]


def write_web(folder: Path, texts: list[str] = TEXTS) -> Path:
    """Deal documents to shards of which half are copies of others."""
    for number, name in enumerate(NAMES):
        write_jsonl(folder / "web" / f"{name}.jsonl", [{"text": text} for text in texts[number % 4 :: 4]])
    return folder


def with_web(folder: Path, **changes: Any) -> CorpusParameters:
    domains = corpus_in(folder).model_dump()["domains"]
    sources = [{"kind": "files", "path": f"web/{half}"} for half in ("[!a-m]*", "[a-m]*")]
    return corpus_in(folder, domains=domains | {"web": {"sources": sources}}, **changes)


def content(prepared: PreparedText) -> tuple[Any, ...]:
    return prepared.documents, prepared.items, prepared.overlap


def prepared(folder: Path, parameters: CorpusParameters) -> tuple[Any, ...]:
    return content(prepare_text(parameters, root=folder, downloads=folder))


@pytest.mark.parametrize("read_as", ["all", "sample"])
def test_the_order_that_the_file_system_gives_is_none(tmp_path: Path, read_as: str, monkeypatch: pytest.MonkeyPatch):
    parameters = with_web(write_web(tmp_path), read=read_as, max_megabytes=0.01)
    expected = prepared(tmp_path, parameters)
    found = glob.glob
    for seed in range(3):
        monkeypatch.setattr(glob, "glob", lambda *given, seed=seed, **named: shuffled(found(*given, **named), seed))
        assert prepared(tmp_path, parameters) == expected


def test_files_go_by_the_code_points_of_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_web(tmp_path)
    names = [f"{name}.jsonl" for name in ("10", "9", "B", "Z", "_", "a", "b", "\u00e4")]
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: shuffled(list(rglob(path, pattern)), 0))
    assert [path.name for path in matching_files("web/*", tmp_path)] == names
    assert [path.name for path in files_below("web", tmp_path)] == names


@pytest.mark.parametrize("read_as", ["all", "sample"])
def test_the_order_of_domains_tasks_and_sources_is_none(tmp_path: Path, read_as: str):
    values = with_web(write_web(tmp_path), read=read_as, max_megabytes=0.01).model_dump()
    write_jsonl(tmp_path / "other.jsonl", [{"question": random_text(row, 9), "answer": "x"} for row in range(9)])
    values["tasks"]["other"] = {"sources": [{"kind": "files", "path": "other.jsonl"}]}
    reordered = {key: dict(reversed(values[key].items())) for key in ("domains", "tasks")}
    reordered["domains"]["web"] = {"sources": list(reversed(values["domains"]["web"]["sources"]))}
    one = prepared(tmp_path, CorpusParameters.model_validate(values))
    other = prepared(tmp_path, CorpusParameters.model_validate(values | reordered))
    assert one == other
    assert list(one[0]) == list(other[0])


def test_the_order_of_documents_and_which_file_they_are_in_is_none_where_all_is_read(tmp_path: Path):
    expected = prepared(tmp_path, with_web(write_web(tmp_path), max_megabytes=0.01))
    for seed in range(2):
        assert prepared(tmp_path, with_web(write_web(tmp_path, shuffled(TEXTS, seed)), max_megabytes=0.01)) == expected


def test_row_groups_dictionaries_and_pages_are_none_where_all_is_read(tmp_path: Path):
    domains = corpus_in(tmp_path).model_dump()["domains"]
    domains["web"] = {"sources": [{"kind": "files", "path": "a.parquet"}]}
    results = []
    for options in ({}, {"row_group_size": 7}, {"use_dictionary": False, "data_page_size": 100, "compression": "gzip"}):
        pq.write_table(pa.table({"text": TEXTS * 2, "id": range(240)}), tmp_path / "a.parquet", **options)
        results.append(prepared(tmp_path, corpus_in(tmp_path, domains=domains)))
    assert results[0] == results[1] == results[2]


def test_members_of_an_archive_go_by_their_names(tmp_path: Path):
    for seed in range(3):
        write_wheel(tmp_path / "a.whl", dict(shuffled([(f"a/{name}", name.encode()) for name in NAMES], seed)))
        names = [name.rpartition("/")[2] for name, _ in read_members(tmp_path / "a.whl", "a/*")]
        assert names == sorted(NAMES)


def test_the_halves_of_a_task_are_those_of_its_questions_whatever_the_order_of_its_records():
    records = [("here", {"question": random_text(row, 9), "answer": random_text(row, 3)}) for row in range(40)]
    halves = split_items(read_items(records), max_items=30, seed=0)
    for seed in range(3):
        assert split_items(read_items(shuffled(records, seed)), max_items=30, seed=0) == halves


def test_a_contiguous_split_keeps_the_order_of_files_and_rows(tmp_path: Path):
    """What is documented to depend on it."""
    parameters = with_web(write_web(tmp_path))
    (source, _) = parameters.domains["web"].sources
    texts = list(read_source(source, root=tmp_path, downloads=tmp_path))
    order = [NAMES.index(path.stem) for path in matching_files("web/[!a-m]*", tmp_path)]
    assert texts == [text for number in order for text in TEXTS[number % 4 :: 4]]


CHILD = """
import hashlib, json, sys
from pathlib import Path
from tikmix_pipeline.corpus.build import prepare_text
from tikmix_pipeline.parameters import CorpusParameters
from tikmix_pipeline.progress import no_progress_bars
folder = Path(sys.argv[1])
parameters = CorpusParameters.model_validate_json((folder / "parameters.json").read_text(encoding="utf-8"))
with no_progress_bars():
    prepared = prepare_text(parameters, root=folder, downloads=folder)
print(hashlib.sha256(json.dumps(prepared.documents).encode()).hexdigest())
"""


def test_locale_and_hash_seed_are_none(tmp_path: Path):
    parameters = with_web(write_web(tmp_path), read="sample", max_megabytes=0.01)
    (tmp_path / "parameters.json").write_text(parameters.model_dump_json(), encoding="utf-8")
    documents = prepare_text(parameters, root=tmp_path, downloads=tmp_path).documents
    expected = hashlib.sha256(json.dumps(documents).encode()).hexdigest()
    for seed, locale in (("1", "C"), ("2", "C.UTF-8")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale, "LANG": locale}
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert child.stdout.strip() == expected
