import gzip
import hashlib
import json
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tikmix_pipeline.corpus import shards
from tikmix_pipeline.corpus.records import Manifest, OverlapRow, SourcesReport, TasksFile
from tikmix_pipeline.corpus.shards import ShardWriter, TokenShards, chunks_of_ids, dtype_for
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import sha256_of_file, write_json

IDS = np.random.default_rng(0).integers(0, 500, size=1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of one domain with 1000 training tokens in files of 300, and 50 held-out tokens."""
    with closing(ShardWriter(tmp_path, "prose/train", "uint16", 300)) as writer:
        for start in range(0, 1000, 70):
            writer.write(IDS[start : start + 70])
        train = writer.finish(documents=10, size=2500)
    with closing(ShardWriter(tmp_path, "prose/heldout", "uint16", 300)) as writer:
        writer.write(IDS[:50])
        heldout = writer.finish(documents=1, size=100)
    (tmp_path / "tasks.parquet").write_bytes(b"tasks")
    manifest = Manifest(
        corpus="tiny",
        dtype="uint16",
        vocabulary_size=500,
        tokenizer_digest="d" * 64,
        domains={"prose": {"train": train, "heldout": heldout}},
        tasks=TasksFile(file="tasks.parquet", sha256=hashlib.sha256(b"tasks").hexdigest()),
        overlap=[OverlapRow(evaluation="quiz", domain="prose", hit=3)],
        sources=SourcesReport(),
    )
    write_json(tmp_path / "manifest.json", manifest.model_dump(mode="json"))
    return tmp_path


def test_tokens_come_back_across_files_as_they_were_written(folder: Path):
    corpus = TokenShards.open(folder)
    windows = corpus.windows("prose", 9)
    read = windows.take(np.arange(len(windows)))
    assert np.array_equal(read[:, 1:].ravel(), IDS[1 : 1 + 9 * len(windows)])
    sizes = [path.stat().st_size for path in sorted((folder / "prose").glob("train-*.bin"))]
    assert sizes == [600, 600, 600, 200]


def test_the_manifest_answers_for_counts_and_identity(folder: Path):
    corpus = TokenShards.open(folder)
    assert (corpus.domains, corpus.vocabulary_size, corpus.tokenizer_digest) == (("prose",), 500, "d" * 64)
    assert (corpus.tokens("prose"), corpus.tokens("prose", "heldout"), corpus.documents("prose")) == (1000, 50, 10)
    assert (corpus.bytes_per_token("prose"), corpus.bytes_per_token("prose", "heldout")) == (2.5, 2.0)
    assert corpus.manifest_digest == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert corpus.tokenizer_folder == folder / "tokenizer"
    assert corpus.tasks_file == folder / "tasks.parquet"


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "longer", "missing"])
def test_a_shard_of_another_length_is_refused_even_unverified(folder: Path, damage: str, verify: bool):
    path = folder / "prose" / "train-00001.bin"
    data = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(data[:-2])
        case "longer":
            path.write_bytes(data + b"\0\0")
        case _:
            path.unlink()
    with pytest.raises(TikmixError, match=rf"the token shard .*train-00001.bin .*Delete {folder} and run the `corpus`"):
        TokenShards.open(folder, verify=verify)


@pytest.mark.parametrize("name", ["prose/train-00002.bin", "prose/heldout-00000.bin", "tasks.parquet"])
def test_an_altered_file_is_refused(folder: Path, name: str):
    data = bytearray((folder / name).read_bytes())
    data[3] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(TikmixError, match=rf"{name} was altered after writing: its SHA-256 differs. Delete "):
        TokenShards.open(folder)


def test_content_is_verified_once_as_long_as_the_file_stays_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch):
    hashed: list[str] = []

    def sha256(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of_file(path)

    monkeypatch.setattr(shards, "sha256_of_file", sha256)
    TokenShards.open(folder)
    assert len(hashed) == 7
    hashed.clear()
    TokenShards.open(folder)
    assert hashed == ["manifest.json"]
    path = folder / "prose" / "train-00002.bin"
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(0, 0))
    with pytest.raises(TikmixError, match=r"train-00002.bin was altered"):
        TokenShards.open(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path):
    with pytest.raises(TikmixError, match=r"holds no corpus \(no manifest.json\). Run the `corpus` pipeline first"):
        TokenShards.open(tmp_path)


def test_a_manifest_of_another_version_is_refused(folder: Path):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(TikmixError, match="has version 2, expected 1"):
        TokenShards.open(folder)


def test_a_manifest_that_lacks_something_is_refused(folder: Path):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"sha256"', '"md5"'))
    with pytest.raises(TikmixError, match=r"(?s)manifest.json is no manifest .*sha256.*Delete "):
        TokenShards.open(folder)


def test_the_report_on_contamination_is_as_it_stands_in_the_manifest(folder: Path):
    (row,) = TokenShards.open(folder).overlap_report()
    assert list(row) == sorted(row)
    assert [row] == json.loads((folder / "manifest.json").read_text())["overlap"]
    assert (row["hit"], row["leaked"]) == (3, None)


def test_an_unknown_domain_is_refused(folder: Path):
    with pytest.raises(TikmixError, match="has no domain 'verse'; it has prose"):
        TokenShards.open(folder).tokens("verse")


def test_a_split_shorter_than_a_window_is_refused(folder: Path):
    corpus = TokenShards.open(folder)
    assert len(corpus.windows("prose", 49, "heldout")) == 1
    with pytest.raises(TikmixError, match=r"the heldout split of the domain 'prose' has 50 tokens, fewer than one"):
        corpus.windows("prose", 50, "heldout")


@pytest.mark.parametrize(("size", "dtype"), [(300, "uint16"), (65536, "uint16"), (65537, "uint32")])
def test_ids_take_the_smallest_dtype_that_holds_them(size: int, dtype: str):
    assert dtype_for(size).name == dtype
    assert np.iinfo(dtype_for(size)).max >= size - 1


def test_token_files_are_read_piece_by_piece(tmp_path: Path):
    IDS.astype("<u2").tofile(tmp_path / "a.bin")
    pieces = list(chunks_of_ids(tmp_path / "a.bin", "uint16", chunk=300))
    assert [len(piece) for piece in pieces] == [300, 300, 300, 100]
    assert np.array_equal(np.concatenate(pieces), IDS)


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_of_no_whole_number_of_ids_is_refused(tmp_path: Path, size: int):
    (tmp_path / "a.bin").write_bytes(b"x" * size)
    with pytest.raises(TikmixError, match=rf"a.bin has {size} bytes, which is no whole number of uint16 token ids"):
        list(chunks_of_ids(tmp_path / "a.bin", "uint16"))


@pytest.mark.parametrize(("wide", "read_as"), [("<u4", "uint16"), ("<i8", "uint16"), ("<i8", "uint32")])
def test_ids_that_are_wider_than_told_are_not_read_as_twice_as_many(tmp_path: Path, wide: str, read_as: str):
    ids = np.random.default_rng(0).integers(0, 150_000, 500)
    ids.astype(wide).tofile(tmp_path / "a.bin")
    with pytest.raises(TikmixError, match=rf"every second {read_as} id is \d or less.*Check the source's `dtype`"):
        list(chunks_of_ids(tmp_path / "a.bin", read_as))
    ids.astype("<u4").tofile(tmp_path / "a.bin")
    assert np.concatenate(list(chunks_of_ids(tmp_path / "a.bin", "uint32"))).tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x93NUMPY\x01\x00" + bytes(120), "a file of numpy.save"),
        (b"MMIDIDX\x00\x00" + bytes(31), "an index of Megatron's"),
        (gzip.compress(bytes(900)) + b"x", "compressed"),
        (b"PAR1" + bytes(200), "Parquet"),
        (b"some text, no tokens\n" * 40, "text"),
    ],
)
def test_other_files_are_not_taken_for_token_ids(tmp_path: Path, content: bytes, kind: str):
    (tmp_path / "a.bin").write_bytes(content + b" " * (len(content) % 2))
    with pytest.raises(TikmixError, match=rf"a.bin is {kind}.*, where token ids without a header are expected"):
        list(chunks_of_ids(tmp_path / "a.bin", "uint16"))
