from pathlib import Path

import pytest

from tikmix_pipeline.corpus.records import DomainReport, OverlapRow, PreparedText, SourcesReport
from tikmix_pipeline.corpus.tasks import Item
from tikmix_pipeline.errors import TikmixError

PREPARED = PreparedText(
    documents={
        "verse": {"train": ["eins\n", "zwei €\n"], "heldout": ["drei\n"]},
        "prose": {"train": ["one\n"], "heldout": []},
    },
    items={"quiz": {"query": [Item("What?", "this", "A passage.")], "evaluation": [Item("Who?", "me")]}},
    overlap=[OverlapRow(evaluation="quiz", domain="prose", hit=0, share_left=0.5)],
    sources=SourcesReport(domains={"verse": DomainReport(sources=[{"field": None}], pretokenised=False, documents=3)}),
)


def test_prepared_text_survives_being_written(tmp_path: Path):
    PREPARED.write(tmp_path / "text")
    again = PreparedText.read(tmp_path / "text")
    assert again == PREPARED
    assert list(again.documents) == ["verse", "prose"]


@pytest.mark.parametrize("name", ["documents/verse.parquet", "items.parquet", "report.json"])
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str):
    PREPARED.write(tmp_path / "text")
    (tmp_path / "text" / name).write_bytes(b"PAR1")
    with pytest.raises(TikmixError, match="Delete it and run"):
        PreparedText.read(tmp_path / "text")


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(TikmixError, match="run the `corpus` pipeline again"):
        PreparedText.read(tmp_path / "nosuch")
