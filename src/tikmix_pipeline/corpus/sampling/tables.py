"""Tables: random row groups of Parquet files, and random rows or shards of Hugging Face datasets.

Of a row group only the text column is read, in batches, and of its rows an even sample is taken. Of datasets on disk
random rows are read, and of those that stream the beginnings of random shards.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tikmix_pipeline.corpus.formats import BATCH_ROWS, parquet_file
from tikmix_pipeline.corpus.local_files import Reading
from tikmix_pipeline.corpus.sampling.draws import ENOUGH_DRAWS, Reservoir, Sampled, draw_shards, fill, shuffled, size_of
from tikmix_pipeline.corpus.sources import naming_dataset, open_dataset
from tikmix_pipeline.corpus.text import missing_field, naming
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import HuggingFaceSource
from tikmix_pipeline.progress import progress_bar

_FILE_DRAWS = 256
"""Draws of files whose row groups are looked up: no more files than that, unless they are tiny."""
_STREAMED_FOLD = 8
"""A stream is read to this multiple of the limit, spread over its shards, and sampled."""
_LEAST_ROW_BYTES = 16
"""What a row counts at least against that multiple: a stream of empty rows must end, too."""
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class _RowGroup:
    path: Path
    file_weight: float
    number: int
    first_row: int
    compressed_bytes: int
    raw_bytes: int


def sample_parquet(
    files: Sequence[Path],
    field: str,
    *,
    limit_bytes: float,
    budget_bytes: float,
    generator: np.random.Generator,
    reading: Reading,
) -> Sampled:
    """Sample the texts in one column of Parquet files; no other is read.

    Files are drawn in proportion to their size where there are many, and then their row groups in proportion to that of
    the column (see `draws.py`). Files are looked up by the footer alone: at most 256, or of files that are smaller than
    1/16 of the limit as many as have 16 times the limit.

    Raises:
        TikmixError: a chosen file is damaged, or has no such column of text; the message names it.
    """
    file_sizes = [path.stat().st_size for path in files]
    listed = draw_shards(file_sizes, limit_bytes=limit_bytes, generator=generator, draws=_FILE_DRAWS)
    groups: list[_RowGroup] = []
    for draw in listed:
        with reading.noting(files[draw.shard]):
            groups += _row_groups(files[draw.shard], field, draw.weight)
    sizes = [group.compressed_bytes for group in groups]
    weights = [group.file_weight for group in groups]
    drawn = draw_shards(sizes, weights=weights, limit_bytes=limit_bytes, budget_bytes=budget_bytes, generator=generator)
    reservoir = Reservoir(limit_bytes, generator)
    rows, text_bytes, raw_bytes = 0, 0.0, 0.0
    with progress_bar("sample", sum(sizes[draw.shard] for draw in drawn), "B") as bar:
        for draw in drawn:
            group, reservoir.weight = groups[draw.shard], draw.weight
            with reading.noting(group.path):
                read = _offer_rows(group, field, reservoir, reading)
                rows += read[0]
                text_bytes, raw_bytes = text_bytes + draw.weight * read[1], raw_bytes + draw.weight * group.raw_bytes
            bar.update(group.compressed_bytes)
    all_raw = sum(group.file_weight * group.raw_bytes for group in groups)
    return Sampled(reservoir.texts, text_bytes * all_raw / raw_bytes if raw_bytes else 0.0, rows)


def _row_groups(path: Path, field: str, file_weight: float) -> list[_RowGroup]:
    """Look up a file's row groups that have rows, from its footer alone."""
    groups: list[_RowGroup] = []
    row = 0
    with parquet_file(path, field) as file:
        leaf = [file.schema.column(leaf).path for leaf in range(len(file.schema))].index(field)
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            if group.num_rows:
                column = group.column(leaf)
                sizes = (column.total_compressed_size, column.total_uncompressed_size)
                groups.append(_RowGroup(path, file_weight, number, row, *sizes))
            row += group.num_rows
    return groups


def _offer_rows(group: _RowGroup, field: str, reservoir: Reservoir, reading: Reading) -> tuple[int, int]:
    """Offer the rows of one group; return how many there are, and the bytes of their texts."""
    rows = size = 0
    with parquet_file(group.path, field) as file:
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group.number], columns=[field], use_threads=False):
            column, first = batch.column(0), group.first_row + rows
            while reservoir.skip < len(column):
                row = reservoir.skip
                place = f"{group.path}, row {first + row}"
                with naming(place):
                    value = column[row].as_py()
                text = reading.text_of({field: value}, field, place)
                reservoir.add(text, size_of(text))
                reservoir.skip += row + 1
            reservoir.skip -= len(column)
            # the bytes of a column of text, without making strings of it
            texts = column if pa.types.is_string(column.type) else column.cast(pa.large_string())
            rows, size = rows + len(column), size + (pc.sum(pc.binary_length(texts)).as_py() or 0)
    return rows, size


def sample_dataset(
    source: HuggingFaceSource, root: Path, *, limit_bytes: float, generator: np.random.Generator, reading: Reading
) -> Sampled:
    """Sample a Hugging Face dataset.

    A stream has no way into the middle of a shard: documents far behind in their shards are never drawn. Its size is
    known only where its description gives the number of rows, or where it was read to its end; else `total_bytes` is
    what was read, and `is_size_known` false.

    Raises:
        TikmixError: the dataset cannot be loaded, or a row has no such field of text.
    """
    with naming_dataset(source, root):
        dataset = open_dataset(source, root, reading)
        if hasattr(dataset, "__len__"):
            rows = _random_rows(dataset, source, generator, reading)
            return fill(rows, limit_bytes=limit_bytes, raw_total=len(dataset))
        return _sample_stream(dataset, source, limit_bytes, generator, reading)


def _random_rows(
    dataset: Any, source: HuggingFaceSource, generator: np.random.Generator, reading: Reading
) -> Iterator[tuple[str, float]]:
    if source.field not in dataset.column_names:
        raise TikmixError(f"{source.path}: {missing_field(source.field, dataset.column_names)}")
    column = dataset.select_columns([source.field])
    numbers = shuffled(len(dataset), generator)
    while rows := list(itertools.islice(numbers, _ROWS_AT_ONCE)):
        for row, text in zip(rows, column[rows][source.field], strict=True):
            yield reading.text_of({source.field: text}, source.field, f"{source.path}, row {row}"), 1


def _sample_stream(
    dataset: Any, source: HuggingFaceSource, limit_bytes: float, generator: np.random.Generator, reading: Reading
) -> Sampled:
    shards = generator.permutation(dataset.num_shards)
    budget = _STREAMED_FOLD * limit_bytes
    share = budget / min(len(shards), ENOUGH_DRAWS)
    reservoir = Reservoir(limit_bytes, generator)
    rows = read = spent = 0
    is_whole = True
    with progress_bar("sample", int(budget), "B") as bar:
        for shard in shards:
            if spent >= budget:
                is_whole = False
                break
            end = spent + share
            for row, record in enumerate(dataset.shard(num_shards=len(shards), index=int(shard))):
                if spent >= end:
                    is_whole = False
                    break
                text = reading.text_of(record, source.field, f"{source.path}, shard {shard}, row {row}")
                size = size_of(text)
                if not reservoir.passes_over():
                    reservoir.add(text, size)
                cost = max(size, _LEAST_ROW_BYTES)
                rows, read, spent = rows + 1, read + size, spent + cost
                bar.update(cost)
    listed = (dataset.info.splits or {}).get(source.split)
    count = listed.num_examples if listed else None
    if is_whole or not rows or not count:
        return Sampled(reservoir.texts, read, rows, is_size_known=is_whole)
    return Sampled(reservoir.texts, max(read, count * read / rows), rows)
