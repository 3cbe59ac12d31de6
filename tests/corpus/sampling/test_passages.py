from pathlib import Path

import numpy as np
import pytest
import zstandard
from sampling_examples import files

from tikmix_pipeline.corpus.sampling.passages import PASSAGE_BYTES, passages_of, sample_plain_text
from tikmix_pipeline.corpus.sampling.sampled import size_of
from tikmix_pipeline.corpus.sampling.sources import sample_sources
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
        sample_plain_text([path], limit_bytes=1e5, generator=np.random.default_rng(0))


def test_of_a_stream_no_more_than_a_block_and_a_passage_is_held():
    blocks = (b"some line of it\n" * 5000 for _ in range(40))
    sizes = [len(passage) for _, passage in passages_of(blocks, whole_bytes=1e5)]
    assert sum(sizes) == 40 * 5000 * 16
    assert max(sizes) < PASSAGE_BYTES + 5000
    assert list(passages_of(iter([b"ab", b"cd"]), whole_bytes=4)) == [(0, b"abcd")]
