from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sampling_examples import TEXTS

from tikmix_pipeline.corpus.formats import parquet_records
from tikmix_pipeline.corpus.local_files import Reading
from tikmix_pipeline.corpus.sampling.draws import Sampled
from tikmix_pipeline.corpus.sampling.tables import sample_parquet
from tikmix_pipeline.errors import TikmixError


def sample(
    *paths: Path, limit: float = 1e6, seed: int = 0, budget_bytes: float = 4e9, reading: Reading | None = None
) -> Sampled:
    return sample_parquet(
        paths,
        "text",
        limit_bytes=limit,
        budget_bytes=budget_bytes,
        generator=np.random.default_rng(seed),
        reading=reading or Reading(),
    )


TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_every_type_of_text_is_read(tmp_path: Path, kind: pa.DataType):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": pa.array(TEXTS).cast(kind)}), path, row_group_size=100)
    sampled = sample(path)
    assert sorted(sampled.texts) == TEXTS
    assert sampled.total_bytes == sum(len(text.encode()) for text in TEXTS)


def test_of_row_groups_beyond_the_budget_none_is_read_but_all_are_estimated(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    texts = [f"{row:06d} " + "word " * (row % 50) for row in range(4000)]
    pq.write_table(pa.table({"text": texts, "id": range(4000)}), path, row_group_size=100, compression="none")
    sizes = pq.ParquetFile(path).metadata.row_group(0).column(0).total_compressed_size
    sampled = sample(path, limit=5000, budget_bytes=5.5 * sizes)
    assert sampled.documents_seen == 500
    assert len({int(text[:6]) // 100 for text in sampled.texts}) == 5
    assert sampled.total_bytes == pytest.approx(sum(map(len, texts)), rel=0.05)


def test_rows_whose_text_is_null_are_left_out_and_counted(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"text": ["a"] * 7 + [None] * 3}).to_parquet(path, row_group_size=5)
    reading = Reading()
    assert sample(path, reading=reading).texts == ["a"] * 7
    assert (reading.records, reading.nulls) == (10, 3)


@pytest.mark.parametrize(
    ("values", "kind"),
    [(range(9), "int64"), ([b"a"], "binary"), ([{"a": "b"}], "struct<a: string>"), ([["a"]], "list")],
)
def test_a_column_of_another_type_is_refused_for_any_seed(tmp_path: Path, values: list[Any], kind: str):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": pa.array(values), "other": pa.array(["a"] * len(values))}), path)
    for seed in range(3):
        with pytest.raises(TikmixError, match=rf"rows.parquet: the field 'text' holds {kind}.*, expected text"):
            sample(path, limit=1, seed=seed)


def test_an_empty_file_may_have_a_column_of_any_type(tmp_path: Path):
    pd.DataFrame({"text": []}).to_parquet(tmp_path / "0.parquet")
    pd.DataFrame({"text": ["word"]}).to_parquet(tmp_path / "1.parquet")
    assert sample(tmp_path / "0.parquet", tmp_path / "1.parquet").texts == ["word"]


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("read", [sample, lambda path: list(parquet_records(path, "text"))])
def test_text_that_is_not_utf8_is_told_by_its_file(tmp_path: Path, kind: pa.DataType, read: Callable[[Path], Any]):
    path = tmp_path / "rows.parquet"
    offsets = pa.array([0, 1, 3], pa.int32()).buffers()[1]
    text = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"a\xe9."))
    pq.write_table(pa.table({"text": text.cast(kind)}), path)
    with pytest.raises(TikmixError, match=r"rows.parquet, .*row.* is not UTF-8: byte 0 is 0xe9. Convert the file"):
        read(path)


def write_uneven(folder: Path, small: int, rows: int, large_rows: int) -> list[Path]:
    """Write small files and a large one, of one row group each; texts begin with the kind of their file."""
    for number in range(small + 1):
        count, kind = (rows, "small") if number < small else (large_rows, "large")
        texts = [f"{kind} {row:06d} {number:06d}" for row in range(count)]
        table = pa.table({"text": texts})
        pq.write_table(
            table, folder / f"{number}.parquet", row_group_size=count, compression="none", use_dictionary=False
        )
    return sorted(folder.iterdir())


@pytest.mark.parametrize("small", [200, 400])
def test_uneven_files_and_row_groups_are_sampled_by_their_size(tmp_path: Path, small: int):
    """Half of the text in many small files, and half in one large row group; of 400 files some are not looked up."""
    paths = write_uneven(tmp_path, small, 10, 10 * small)
    seeds = 10
    samples = [sample(*paths, limit=1000, seed=seed) for seed in range(seeds)]
    large = np.mean([text.startswith("large") for each in samples for text in each.texts])
    # each small file has a page of its own, which the size in the footer counts
    assert large == pytest.approx(0.5, abs=0.1)
    assert np.mean([each.total_bytes for each in samples]) == pytest.approx(20 * small * 19, rel=0.05)
    assert all(len(set(each.texts)) == len(each.texts) for each in samples)
