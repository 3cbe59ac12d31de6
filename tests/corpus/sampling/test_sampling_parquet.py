from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sampling_examples import TEXTS

from tikmix_pipeline.corpus.sampling.parquet import sample_parquet
from tikmix_pipeline.corpus.sampling.sampled import Sampled
from tikmix_pipeline.errors import TikmixError


def sample(path: Path, limit: float = 1e6, seed: int = 0, **changes: float) -> Sampled:
    return sample_parquet([path], "text", limit_bytes=limit, generator=np.random.default_rng(seed), **changes)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
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


def test_a_row_that_holds_no_text_is_told_by_its_row_in_the_file(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"text": ["a"] * 7 + [None] * 3}).to_parquet(path, row_group_size=5)
    with pytest.raises(TikmixError, match=r"rows.parquet, row [789]: the field 'text' holds NoneType, expected text"):
        sample(path)
    pd.DataFrame({"text": range(9)}).to_parquet(path)
    with pytest.raises(TikmixError, match=r"rows.parquet, row 0: the field 'text' holds int, expected text"):
        sample(path)
