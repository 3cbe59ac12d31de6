import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard
from sampling_examples import TEXTS, files, json_lines, write_shard

from tikmix_pipeline.corpus.local_files import Reading
from tikmix_pipeline.corpus.reading import sample_sources
from tikmix_pipeline.corpus.sampling import text_files
from tikmix_pipeline.corpus.sampling.draws import Reservoir, size_of
from tikmix_pipeline.corpus.sampling.text_files import (
    PASSAGE_BYTES,
    offer_lines,
    passages_of,
    sample_plain_text,
    sample_streams,
)
from tikmix_pipeline.errors import TikmixError

LINES = "".join(f"line {row} of the ünicode text\n" for row in range(30_000))


def drawn(root: Path, limit: float, seed: int, pattern: str = "*.txt*") -> list[str]:
    return sample_sources([files(pattern)], root=root, downloads=root, limit_bytes=limit, seed=seed).texts


@pytest.mark.parametrize("name", ["long.txt", "long.txt.zst"])
def test_a_long_text_is_cut_into_passages_that_tile_it_at_line_starts(tmp_path: Path, name: str):
    data = LINES.encode()
    (tmp_path / name).write_bytes(zstandard.compress(data) if name.endswith("zst") else data)
    passages = drawn(tmp_path, limit=1e6, seed=0)
    assert sum(map(len, passages)) == len(LINES)
    assert all(passage.startswith("line ") and passage.endswith("\n") for passage in passages)
    assert "".join(sorted(passages, key=LINES.index)) == LINES
    assert 0.9 * PASSAGE_BYTES < np.median([size_of(passage) for passage in passages]) < 1.1 * PASSAGE_BYTES


@pytest.mark.parametrize("name", ["one.txt", "one.txt.gz"])
def test_a_text_without_lines_is_cut_between_characters(tmp_path: Path, name: str):
    import gzip

    text = "ü€😀" * 12_000
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    passages = drawn(tmp_path, limit=2e5, seed=0)
    assert len(passages) > 5
    assert sum(map(len, passages)) == len(text)


@pytest.mark.parametrize("name", ["long.txt", "long.txt.zst"])
def test_passages_are_spread_evenly(tmp_path: Path, name: str):
    data = LINES.encode()
    (tmp_path / name).write_bytes(zstandard.compress(data) if name.endswith("zst") else data)
    numbers = [int(text.split()[1]) for seed in range(30) for text in drawn(tmp_path, limit=9e4, seed=seed)]
    fifths = np.histogram(numbers, bins=5, range=(0, 30_000))[0]
    assert fifths == pytest.approx(5 * [len(numbers) / 5], rel=0.4)


def test_files_and_passages_of_larger_files_are_equally_likely(tmp_path: Path):
    (tmp_path / "large.txt").write_text(LINES, encoding="utf-8")
    for row in range(20):
        (tmp_path / f"{row}.txt").write_text(f"small {row} " + "word " * 2000)
    texts = [text for seed in range(40) for text in drawn(tmp_path, limit=1.2e5, seed=seed)]
    small = sum(size_of(text) for text in texts if text.startswith("small")) / sum(map(size_of, texts))
    assert small == pytest.approx(20 * 10_000 / (20 * 10_000 + size_of(LINES)), abs=0.03)


def test_a_passage_that_is_not_utf8_is_told_by_file_and_byte(tmp_path: Path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 au lait\n" * 30_000)
    with pytest.raises(TikmixError, match=r"latin.txt, from byte \d+ on, is not UTF-8: byte 3 is 0xe9"):
        sample_plain_text([path], limit_bytes=1e5, generator=np.random.default_rng(0), reading=Reading())


def test_of_a_stream_no_more_than_a_block_and_a_passage_is_held():
    blocks = (b"some line of it\n" * 5000 for _ in range(40))
    sizes = [len(passage) for _, passage in passages_of(blocks, whole_bytes=1e5)]
    assert sum(sizes) == 40 * 5000 * 16
    assert max(sizes) < PASSAGE_BYTES + 5000
    assert list(passages_of(iter([b"ab", b"cd"]), whole_bytes=4)) == [(0, b"abcd")]


DATA = json_lines(TEXTS)


def offered(data: bytes, block_bytes: int, limit: float, seed: int = 0) -> tuple[Reservoir, tuple[int, int]]:
    reservoir = Reservoir(limit, np.random.default_rng(seed))
    blocks = (data[start : start + block_bytes] for start in range(0, len(data), block_bytes))
    return reservoir, offer_lines(blocks, "rows", "text", reservoir, Reading())


@pytest.mark.parametrize("limit", [5000, 1e6])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_sample_does_not_depend_on_where_blocks_end(limit: float, end: bytes):
    data = DATA.removesuffix(b"\n") + end
    first, counts = offered(data, len(data), limit)
    assert counts == (len(TEXTS), len(data))
    for block_bytes in (1, 7, 100, 1000, 20_001):
        other, other_counts = offered(data, block_bytes, limit)
        assert (other.texts, other_counts, other.skip) == (first.texts, counts, first.skip)
    if limit > len(data):
        assert sorted(first.texts) == TEXTS


def test_the_count_goes_on_from_one_file_to_the_next():
    whole = Reservoir(3000, np.random.default_rng(5))
    offer_lines([DATA], "rows", "text", whole, Reading())
    parts = Reservoir(3000, np.random.default_rng(5))
    lines = DATA.splitlines(keepends=True)
    for start in range(0, len(lines), 17):
        assert offer_lines([b"".join(lines[start : start + 17])], "rows", "text", parts, Reading())[0] == len(
            lines[start : start + 17]
        )
    assert parts.texts == whole.texts


class Block(bytes):
    """Counts how many of its kind are alive."""

    alive = most = 0

    def __init__(self, _: bytes):
        Block.alive += 1
        Block.most = max(Block.most, Block.alive)

    def __del__(self) -> None:
        Block.alive -= 1


def test_blocks_are_not_held():
    def blocks() -> Iterator[bytes]:
        for _ in range(50):
            yield Block(DATA)

    reservoir = Reservoir(2000, np.random.default_rng(0))
    assert offer_lines(blocks(), "rows", "text", reservoir, Reading())[0] == 50 * len(TEXTS)
    assert Block.most <= 2
    assert sum(len(text.encode()) for text in reservoir.texts) <= 2000


def test_a_budget_leaves_shards_out_and_the_size_is_still_that_of_all(tmp_path: Path):
    paths = [write_shard(tmp_path / f"{row:02d}.jsonl.zst", TEXTS) for row in range(20)]
    budget = 5.5 * paths[0].stat().st_size
    sampled = sample_streams(
        paths, "text", limit_bytes=4000, budget_bytes=budget, generator=np.random.default_rng(0), reading=Reading()
    )
    assert sampled.documents_seen == 5 * len(TEXTS)
    assert sampled.total_bytes == pytest.approx(20 * sum(len(text.encode()) for text in TEXTS), rel=0.01)


def test_many_shards_are_estimated_from_those_that_were_read(tmp_path: Path):
    """Shards of unlike sizes, of which 32 are read, and half of whose bytes are other fields."""
    total = 0
    for row in range(80):
        texts = [f"{row} {number} " + "word " * (1 + row % 4) * 10 for number in range(10 + row % 7)]
        total += sum(map(len, texts))
        (tmp_path / f"{row}.jsonl.zst").write_bytes(zstandard.compress(json_lines(texts, id="x" * 60)))
    estimates = [
        sample_sources([files("*.zst")], root=tmp_path, downloads=tmp_path, limit_bytes=3000, seed=seed).total_bytes
        for seed in range(10)
    ]
    assert np.mean(estimates) == pytest.approx(total, rel=0.06)


@pytest.mark.parametrize("ending", ["jsonl.zst", "jsonl.gz"])
def test_uneven_shards_are_sampled_by_their_size(tmp_path: Path, ending: str):
    """Half of the text in sixty small shards, and half in one; a thirtieth of it may be read, or the large shard."""
    generator = np.random.default_rng(0)
    noise = [generator.bytes(150).hex() for _ in range(1200)]
    rows = [f"{'small' if row < 600 else 'large'} {text}\n" for row, text in enumerate(noise)]
    parts = [*(rows[start : start + 10] for start in range(0, 600, 10)), rows[600:]]
    paths = []
    for number, part in enumerate(parts):
        paths.append(tmp_path / f"{number:02d}.{ending}")
        compress = gzip.compress if ending.endswith("gz") else zstandard.compress
        paths[-1].write_bytes(compress(json_lines(part)))
    for budget, seeds in ((1e9, 12), (1.05 * paths[-1].stat().st_size, 40)):
        large = []
        for seed in range(seeds):
            sampled = sample_streams(
                paths,
                "text",
                limit_bytes=3000,
                budget_bytes=budget,
                generator=np.random.default_rng(seed),
                reading=Reading(),
            )
            large.append(np.mean([text.startswith("large") for text in sampled.texts]))
            assert sampled.total_bytes == pytest.approx(sum(map(len, rows)), rel=0.12)
        assert np.mean(large) == pytest.approx(0.5, abs=0.1)


def test_a_line_that_may_stay_is_refused_where_it_is_too_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_files, "LONGEST_LINE_BYTES", 1 << 20)
    blocks = [b'{"text": "a"}\n{"text": "', *([b"x" * 4096] * 257)]
    with pytest.raises(TikmixError, match=r"rows, line 2 has more than \d+ MiB: it is no line of JSON lines"):
        offer_lines(blocks, "rows", "text", Reservoir(1e9, np.random.default_rng(0)), Reading())
