"""Parquet: some row groups at random, of each the text column in batches, and an even sample of their rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_pipeline.corpus.formats import parquet_file
from tikmix_pipeline.corpus.records import text_of
from tikmix_pipeline.corpus.sampling.reservoir import Reservoir
from tikmix_pipeline.corpus.sampling.sampled import Sampled, is_blank, size_of
from tikmix_pipeline.corpus.sampling.streams import READING_BUDGET_BYTES, chosen_shards
from tikmix_pipeline.progress import progress_bar

_MOST_FILES = 256
"""Files whose row groups are looked up; of more, so many at random."""
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class _RowGroup:
    path: Path
    number: int
    first_row: int
    compressed_bytes: int
    raw_bytes: int


def sample_parquet(
    files: Sequence[Path],
    field: str,
    *,
    limit_bytes: float,
    budget_bytes: float = READING_BUDGET_BYTES,
    generator: np.random.Generator,
) -> Sampled:
    """Sample the rows' texts. All rows of the files are equally likely, and so a row group in proportion to its rows.

    Args:
        files: in an order that does not depend on the machine.
        field: the column that holds the text; no other is read.
        limit_bytes: most UTF-8 bytes of text; memory is bounded by it.
        budget_bytes: most compressed bytes of the column to be read.
        generator: decides.

    Raises:
        TikmixError: a chosen file is damaged, or has no such column of text; the message names it.
    """
    listed = [files[file] for file in generator.permutation(len(files))[:_MOST_FILES]]
    groups = [group for path in listed for group in _row_groups(path, field)]
    sizes = [group.compressed_bytes for group in groups]
    chosen = chosen_shards(sizes, limit_bytes=limit_bytes, budget_bytes=budget_bytes, generator=generator)
    reservoir = Reservoir(limit_bytes, generator)
    rows = text_bytes = 0
    with progress_bar("sample", sum(sizes[group] for group in chosen), "B") as bar:
        for group in chosen:
            read = _offer_rows(groups[group], field, reservoir)
            rows, text_bytes = rows + read[0], text_bytes + read[1]
            bar.update(sizes[group])
    read_raw = sum(groups[group].raw_bytes for group in chosen)
    listed_share = sum(path.stat().st_size for path in listed) / sum(path.stat().st_size for path in files)
    total = text_bytes * sum(group.raw_bytes for group in groups) / read_raw / listed_share if read_raw else 0.0
    return Sampled(reservoir.texts, total, rows)


def _row_groups(path: Path, field: str) -> list[_RowGroup]:
    """Look up a file's row groups that have rows, from its footer alone."""
    groups: list[_RowGroup] = []
    row = 0
    with parquet_file(path, field) as file:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            columns = (group.column(column) for column in range(group.num_columns))
            column = next((column for column in columns if column.path_in_schema == field), None)
            if group.num_rows:
                sizes = (column.total_compressed_size, column.total_uncompressed_size) if column else 2 * (1,)
                groups.append(_RowGroup(path, number, row, *sizes))
            row += group.num_rows
    return groups


def _offer_rows(group: _RowGroup, field: str, reservoir: Reservoir) -> tuple[int, int]:
    """Offer the rows of one group; return how many there are, and the bytes of their texts."""
    rows = size = 0
    with parquet_file(group.path, field) as file:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group.number], columns=[field], use_threads=False):
            column, first = batch.column(0), group.first_row + rows
            while reservoir.skip < len(column):
                row = reservoir.skip
                text = text_of({field: column[row].as_py()}, field, f"{group.path}, row {first + row}")
                reservoir.add(text, size_of(text))
                reservoir.skip += row + 1
            reservoir.skip -= len(column)
            rows, size = rows + len(column), size + _text_bytes(column)
    return rows, size


def _text_bytes(column: Any) -> int:
    """Return the bytes of a column of text, without making strings of it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.sum(pc.binary_length(column)).as_py() or 0
    return sum(size_of(text) for text in column.to_pylist() if text and not is_blank(text))
