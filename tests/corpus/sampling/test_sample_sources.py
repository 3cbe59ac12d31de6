import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sampling_examples import SHARDS, TEXTS, TOTAL_BYTES, files, inclusion, json_lines, write_domain, write_shard

from tikmix_pipeline.corpus.reading import sample_sources
from tikmix_pipeline.corpus.sampling import tables, text_files
from tikmix_pipeline.corpus.sampling.draws import Sampled, size_of
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import HuggingFaceSource, StandardLibrarySource

ENDINGS = ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "txt"]
LIMIT = 7000


def sample(root: Path, *sources: Any, limit: float = LIMIT, seed: int = 0) -> Sampled:
    return sample_sources(sources, root=root, downloads=root, limit_bytes=limit, seed=seed)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per format, each with the same documents."""
    root = tmp_path_factory.mktemp("domains")
    for ending in ENDINGS:
        write_domain(root / ending, ending)
    return root


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_document_is_equally_likely_however_long_it_is_and_wherever_it_stands(domains: Path, ending: str):
    """Not quite: of the documents at the limit, long ones do not fit more often; hence a tenth."""
    seeds = 90
    samples = [sample(domains, files(f"{ending}/*"), seed=seed) for seed in range(seeds)]
    counts, short, long = inclusion(each.texts for each in samples)
    expected = seeds * LIMIT / TOTAL_BYTES
    assert short == pytest.approx(expected, rel=0.1)
    assert long == pytest.approx(expected, rel=0.1)
    # neighbours may come together, but none of the 240 stands out: five standard deviations of independent draws
    deviation = np.sqrt(expected * (1 - LIMIT / TOTAL_BYTES))
    assert max(abs(counts[row] - expected) for row in range(len(TEXTS))) < 5 * deviation
    for each in samples:
        assert len(each.texts) == len(set(each.texts))
        assert LIMIT - 700 < sum(map(size_of, each.texts)) <= LIMIT
    estimates = [each.total_bytes for each in samples]
    assert np.mean(estimates) == pytest.approx(TOTAL_BYTES, rel=0.03)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_sample_depends_on_files_and_seed_alone(domains: Path, ending: str, tmp_path: Path):
    shutil.copytree(domains / ending, tmp_path / "elsewhere" / ending)
    whole, (first, *others) = files(f"{ending}/*"), sorted(path.name for path in (domains / ending).iterdir())
    parts = [files(f"{ending}/{first}"), whole, files(f"{ending}/{others[0]}")]
    one = sample(domains, whole, seed=3)
    assert one == sample(tmp_path / "elsewhere", *reversed(parts), seed=3)
    assert one.texts != sample(domains, whole, seed=4).texts


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_limit_above_the_domain_takes_all_of_it_once(domains: Path, ending: str):
    sampled = sample(domains, files(f"{ending}/*"), limit=2 * TOTAL_BYTES)
    assert sorted(sampled.texts) == TEXTS
    assert sampled.texts != TEXTS
    assert (round(sampled.total_bytes), sampled.documents_seen) == (TOTAL_BYTES, len(TEXTS))


@pytest.mark.parametrize("ending", ENDINGS)
def test_at_least_one_document_is_drawn(domains: Path, ending: str):
    assert len(sample(domains, files(f"{ending}/*"), limit=1).texts) == 1


def test_the_limit_is_dealt_to_kinds_of_files_by_their_text(tmp_path: Path):
    """The first is half metadata and hardly compressed, so that sizes on disk would mislead."""
    (tmp_path / "0.jsonl").write_bytes(json_lines(SHARDS[0], more="x" * 900))
    write_shard(tmp_path / "1.jsonl.zst", SHARDS[1])
    write_shard(tmp_path / "2.parquet", SHARDS[2])
    sources, limit = list(map(files, ("*.jsonl", "*.zst", "*.parquet"))), 3 * LIMIT
    samples = [sample(tmp_path, *sources, limit=limit, seed=seed) for seed in range(40)]
    sizes = [sum(map(size_of, shard)) for shard in SHARDS]
    drawn = [
        np.mean([sum(size_of(text) for text in each.texts if text in shard) for each in samples]) / limit
        for shard in map(set, SHARDS)
    ]
    # what does not fit any more is left out of each, by up to half a document
    assert drawn == pytest.approx([size / TOTAL_BYTES for size in sizes], abs=0.02)
    assert np.mean([each.total_bytes for each in samples]) == pytest.approx(TOTAL_BYTES, rel=0.03)


def test_packages_are_read_whole_beside_files_that_are_sampled(domains: Path):
    library = StandardLibrarySource(kind="standard_library")
    sampled = sample(domains, library, files("jsonl/*"), limit=400_000)
    assert 200_000 < sum(map(size_of, sampled.texts)) <= 400_000
    assert sampled.total_bytes > 5e6


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet", "txt"])
def test_blank_documents_are_left_out_and_files_of_them_refused(tmp_path: Path, ending: str):
    texts = ["", " \n", "word", "\n"]
    if ending == "txt":
        for row, text in enumerate(texts):
            (tmp_path / f"{row}.txt").write_text(text)
    else:
        write_shard(tmp_path / f"rows.{ending}", texts)
    assert sample(tmp_path, files(f"*.{ending}")).texts == ["word"]
    (tmp_path / f"2.{ending}").unlink(missing_ok=True)
    if ending != "txt":
        write_shard(tmp_path / f"rows.{ending}", [" "])
    with pytest.raises(TikmixError, match=f"{ending}.*: no text was found. Check the files"):
        sample(tmp_path, files(f"*.{ending}"))


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_a_missing_field_is_told_by_file_and_place(tmp_path: Path, ending: str):
    write_shard(tmp_path / f"rows.{ending}", TEXTS)
    with pytest.raises(TikmixError, match=rf"rows.{ending}.*no field 'body'. The names are .*'text'"):
        sample(tmp_path, files(f"rows.{ending}", field="body"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": \n', "is not valid JSON"),
        (b'{"text": "a"}\n{"text": "\xe9"}\n', "is not UTF-8: byte 24 of the text is 0xe9"),
        (b'{"text": "a"}\n{"text": 7}\n', "the field 'text' holds int, expected text"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst"])
def test_damaged_lines_are_told_by_file_and_place(tmp_path: Path, ending: str, content: bytes, message: str):
    import zstandard

    (tmp_path / f"bad.{ending}").write_bytes(zstandard.compress(content) if ending.endswith("zst") else content)
    place = "line 2" if ending.endswith("zst") else "byte 14"
    with pytest.raises(TikmixError, match=rf"bad.{ending}, {place}:? {message}"):
        sample(tmp_path, files(f"bad.{ending}"))


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst", "parquet"])
def test_files_that_were_cut_off_are_refused_by_name(tmp_path: Path, ending: str):
    path = write_shard(tmp_path / f"rows.{ending}", TEXTS)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(TikmixError, match=rf"rows.{ending} (cannot be read to its end|is no complete Parquet file)"):
        sample(tmp_path, files(f"rows.{ending}"))


@pytest.fixture(scope="module")
def datasets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import datasets

    datasets.disable_progress_bars()
    root = tmp_path_factory.mktemp("datasets")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(root / "saved"), num_shards=2)
    for number, texts in enumerate(SHARDS):
        write_shard(root / "streamed" / f"{number}.parquet", texts)
    return root


@pytest.mark.parametrize("path", ["saved", "streamed"])
def test_hugging_face_datasets_are_sampled_evenly(
    datasets_folder: Path, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    source = HuggingFaceSource(kind="huggingface", path=path)
    seeds, limit = (60, LIMIT) if path == "saved" else (3, 27_000)
    samples = [sample(datasets_folder, source, limit=limit, seed=seed) for seed in range(seeds)]
    _, short, long = inclusion(each.texts for each in samples)
    assert short == pytest.approx(seeds * limit / TOTAL_BYTES, rel=0.15)
    assert long == pytest.approx(seeds * limit / TOTAL_BYTES, rel=0.15)
    assert np.mean([each.total_bytes for each in samples]) == pytest.approx(TOTAL_BYTES, rel=0.05)
    assert samples[0] == sample(datasets_folder, source, limit=limit)
    assert all(len(each.texts) == len(set(each.texts)) for each in samples)
    with pytest.raises(TikmixError, match=f"{path}.*there is no field 'body'. The names are"):
        sample(datasets_folder, HuggingFaceSource(kind="huggingface", path=path, field="body"))


def test_a_dataset_of_local_data_files_is_sampled_as_these_files(domains: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for builder, ending in (("json", "jsonl.zst"), ("parquet", "parquet")):
        source = HuggingFaceSource(kind="huggingface", path=builder, data_files=[f"{ending}/*.{ending}"])
        assert sample(domains, source) == sample(domains, files(f"{ending}/*"))
        with pytest.raises(TikmixError, match="needs the library `datasets`"):
            sample(domains, source.model_copy(update={"split": "train[:9]"}))
    for data_files in ("txt/*", "nowhere/*"):
        with pytest.raises(TikmixError, match="needs the library `datasets`"):
            sample(domains, HuggingFaceSource(kind="huggingface", path="json", data_files=data_files))


def test_a_stream_is_read_no_further_than_a_multiple_of_the_limit_from_all_its_shards(datasets_folder: Path):
    sampled = sample(datasets_folder, HuggingFaceSource(kind="huggingface", path="streamed"), limit=500)
    read = sampled.total_bytes
    assert 4000 <= read < 4000 + 3 * 400
    assert sampled.documents_seen < 100


class Stream:
    """A dataset that streams texts, in shards and with a number of rows that may be unknown."""

    num_shards = 4

    def __init__(self, texts: Callable[[int], str], shard_rows: int, listed: int | None = None):
        self.texts, self.shard_rows, self.read = texts, shard_rows, 0
        self.info = SimpleNamespace(splits={"train": SimpleNamespace(num_examples=listed)})

    def shard(self, num_shards: int, index: int) -> Iterator[dict[str, str]]:
        assert num_shards == self.num_shards
        for row in range(self.shard_rows):
            self.read += 1
            yield {"text": self.texts(index * self.shard_rows + row)}


STREAM = HuggingFaceSource(kind="huggingface", path="far/away", streaming=True)


def test_a_stream_of_unknown_size_counts_as_the_other_sources_do_on_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    write_shard(tmp_path / "0.jsonl", [f"one {row:096d}" for row in range(2000)])
    write_shard(tmp_path / "1.jsonl.gz", [f"six {row:096d}" for row in range(6000)])
    monkeypatch.setattr(tables, "open_dataset", lambda *_: Stream(lambda row: f"far {row:096d}", 10**6))
    with caplog.at_level("INFO"):
        sampled = sample(tmp_path, files("0.jsonl"), STREAM, files("1.jsonl.gz"), limit=40_000)
    counts = Counter(text[:3] for text in sampled.texts)
    # 0.2, 0.6 and, on average, 0.4 MB, of texts of 100 bytes
    assert counts == {"one": 66, "six": 200, "far": 133}
    assert not sampled.is_size_known
    assert "far/away" in caplog.text
    assert "its size is not known" in caplog.text


def test_a_stream_of_unknown_size_counts_no_less_than_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shard(tmp_path / "0.jsonl", TEXTS[:20])
    monkeypatch.setattr(tables, "open_dataset", lambda *_: Stream(lambda row: f"far {row:06d}", 10**5))
    sampled = sample(tmp_path, files("0.jsonl"), STREAM)
    assert sum(size_of(text) for text in sampled.texts if text.startswith("far")) > 0.95 * LIMIT
    with_rows = Stream(lambda row: f"far {row:06d}", 10**5, listed=10**6)
    monkeypatch.setattr(tables, "open_dataset", lambda *_: with_rows)
    assert sample(tmp_path, STREAM).total_bytes == pytest.approx(10e6, rel=0.01)


def test_a_stream_of_blank_texts_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stream = Stream(lambda _: "", 10**6)
    monkeypatch.setattr(tables, "open_dataset", lambda *_: stream)
    with pytest.raises(TikmixError, match=r"far/away'?: no text was found"):
        sample(tmp_path, STREAM)
    assert stream.read < LIMIT


def test_records_of_mostly_other_data_fill_the_limit(tmp_path: Path):
    """Text is a hundredth of the bytes, and in a tenth of the records."""
    texts = [f"{row:05d} text" if row % 10 == 0 else "" for row in range(6000)]
    (tmp_path / "0.jsonl").write_bytes(json_lines(texts, more="x" * 80))
    assert 4000 - 10 < sum(map(size_of, sample(tmp_path, files("0.jsonl"), limit=4000).texts)) <= 4000


def test_lines_far_larger_than_the_limit_are_found_for_any_seed(tmp_path: Path):
    (tmp_path / "0.jsonl").write_bytes(json_lines(f"{row:02d}" + 100_000 * "x" for row in range(20)))
    drawn = {sample(tmp_path, files("0.jsonl"), limit=10_000, seed=seed).texts[0][:2] for seed in range(8)}
    assert len(drawn) > 3


def test_rows_of_mostly_nothing_fill_the_limit(tmp_path: Path):
    import datasets

    texts = [f"{row:05d}" if row % 20 == 0 else "" for row in range(20_000)]
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(tmp_path / "saved"))
    sampled = sample(tmp_path, HuggingFaceSource(kind="huggingface", path="saved"), limit=2000)
    assert len(sampled.texts) == 400


def test_a_line_that_is_too_long_is_refused_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_files, "LONGEST_LINE_BYTES", 1000)
    write_shard(tmp_path / "0.jsonl", [2000 * "x"])
    with pytest.raises(TikmixError, match=r"0.jsonl, byte 0 has more than"):
        sample(tmp_path, files("0.jsonl"))
