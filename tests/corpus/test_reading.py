import logging
from pathlib import Path
from typing import Any

import pytest
from corpus_examples import corpus_in, random_text, write_jsonl

from tikmix_pipeline.corpus import reading
from tikmix_pipeline.corpus.build import check_parameters, prepare_text
from tikmix_pipeline.corpus.reading import is_sampled, read_domain
from tikmix_pipeline.corpus.sources import cap_bytes
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import CorpusParameters


def decided(parameters: CorpusParameters, root: Path, domain: str = "prose") -> bool:
    return is_sampled(parameters.domains[domain], parameters, root)


def prose(root: Path, **changes: Any) -> dict[str, Any]:
    return {"prose": corpus_in(root).model_dump()["domains"]["prose"] | changes}


def sparse(path: Path, size: float) -> None:
    with path.open("wb") as stream:
        stream.truncate(int(size))


def test_a_domain_is_sampled_where_its_files_are_large_and_many_times_its_cap(tmp_path: Path):
    parameters = corpus_in(tmp_path, max_megabytes=4)
    assert not decided(parameters, tmp_path)
    sparse(tmp_path / "prose.jsonl", 257e6)
    assert decided(parameters, tmp_path)
    assert not decided(parameters, tmp_path, "verse")
    assert not decided(corpus_in(tmp_path / "other", max_megabytes=4), tmp_path / "other")
    assert not decided(parameters.model_copy(update={"max_megabytes": 9.0}), tmp_path)
    assert not decided(parameters.model_copy(update={"max_megabytes": None}), tmp_path)
    assert not decided(parameters.model_copy(update={"read": "all"}), tmp_path)


def test_neighbours_and_packages_are_read_whole_and_small_files_sampled_on_request(tmp_path: Path):
    assert decided(corpus_in(tmp_path, max_megabytes=4, read="sample"), tmp_path)
    contiguous = corpus_in(tmp_path, max_megabytes=4, read="sample", domains=prose(tmp_path, contiguous_split=True))
    assert not decided(contiguous, tmp_path)
    library = corpus_in(
        tmp_path,
        max_megabytes=4,
        read="sample",
        domains=prose(tmp_path, sources=[{"kind": "standard_library"}]),
    )
    assert not decided(library, tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"path": "org/web"}, True),
        ({"path": "org/web", "streaming": False}, False),
        ({"path": "rows"}, False),
        ({"path": "json", "data_files": "rows/*"}, False),
        ({"path": "large"}, True),
    ],
)
def test_datasets_are_sampled_that_stream_from_the_hub_or_are_large(tmp_path: Path, source: Any, expected: bool):
    for name, size in (("rows", 9), ("large", 300e6)):
        (tmp_path / name).mkdir()
        sparse(tmp_path / name / "a.parquet", size)
    domains = prose(tmp_path, sources=[{"kind": "huggingface"} | source])
    assert decided(corpus_in(tmp_path, max_megabytes=4, domains=domains), tmp_path) == expected


def test_sampling_without_a_cap_is_refused_before_anything_is_read(tmp_path: Path):
    with pytest.raises(TikmixError, match=r"corpus.domains.prose: corpus.read is `sample`, .*Set corpus.max_megabytes"):
        prepare_text(corpus_in(tmp_path, read="sample"), root=tmp_path, downloads=tmp_path)
    own = corpus_in(tmp_path, read="sample", domains=prose(tmp_path, max_megabytes=1.0))
    check_parameters(own, tmp_path)
    assert cap_bytes(own.domains["prose"], own) == 1e6


def test_a_sampled_domain_says_so_and_how_large_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    parameters = corpus_in(tmp_path, read="sample", max_megabytes=0.02, heldout_fraction=0.2)
    texts = [random_text(1000 + row) for row in range(400)]
    write_jsonl(tmp_path / "prose.jsonl", [{"text": text} for text in texts])
    with caplog.at_level(logging.INFO, logger="tikmix_pipeline"):
        prepared = prepare_text(parameters, root=tmp_path, downloads=tmp_path)
    report = prepared.sources.domains["prose"]
    assert report.sampled
    assert report.total_bytes == pytest.approx(sum(map(len, texts)), rel=0.02)
    assert report.documents_sampled <= report.documents_read < 200
    assert 15_000 < report.bytes <= 20_000
    assert {*prepared.documents["prose"]["train"], *prepared.documents["prose"]["heldout"]} <= set(texts)
    (table,) = [message for message in caplog.messages if "prose" in message]
    (row,) = [line for line in table.splitlines() if line.startswith("prose")]
    assert row.split()[1].startswith("~0.10")
    assert row.split()[2] == "0.040"
    assert row.endswith("at random places")
    assert prepare_text(parameters, root=tmp_path, downloads=tmp_path) == prepared
    other = parameters.model_copy(update={"seed": 1})
    assert prepare_text(other, root=tmp_path, downloads=tmp_path).documents != prepared.documents


def test_a_domain_read_whole_says_its_exact_size(tmp_path: Path):
    report = prepare_text(corpus_in(tmp_path), root=tmp_path, downloads=tmp_path).sources.domains["verse"]
    size = sum(len(random_text(2000 + row)) for row in range(40))
    assert (report.sampled, report.total_bytes, report.documents_read) == (False, size, 40)


def test_twice_the_cap_is_sampled_where_near_duplicates_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limits: list[float] = []
    sample_sources = reading.sample_sources
    monkeypatch.setattr(
        reading,
        "sample_sources",
        lambda *sources, limit_bytes, **rest: (
            limits.append(limit_bytes) or sample_sources(*sources, limit_bytes=limit_bytes, **rest)
        ),
    )
    for enabled in (True, False):
        parameters = corpus_in(tmp_path, read="sample", max_megabytes=0.005, near_duplicates={"enabled": enabled})
        read_domain("prose", parameters.domains["prose"], parameters, root=tmp_path, downloads=tmp_path)
    assert limits == [10_000, 5000]
    (tmp_path / "prose.jsonl").unlink()
    with pytest.raises(TikmixError, match=r"corpus.domains.prose: no file matches"):
        read_domain("prose", parameters.domains["prose"], parameters, root=tmp_path, downloads=tmp_path)
