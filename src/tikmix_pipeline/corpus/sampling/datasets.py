"""Hugging Face datasets: random rows of those on disk, and the beginnings of random shards of those that stream."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_pipeline.corpus.huggingface import naming_dataset, open_dataset
from tikmix_pipeline.corpus.records import missing_field, text_of
from tikmix_pipeline.corpus.sampling.draws import ENOUGH_DRAWS
from tikmix_pipeline.corpus.sampling.places import shuffled
from tikmix_pipeline.corpus.sampling.reservoir import Reservoir
from tikmix_pipeline.corpus.sampling.sampled import Sampled, fill, size_of
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import HuggingFaceSource
from tikmix_pipeline.progress import progress_bar

_STREAMED_FOLD = 8
"""A stream is read to this multiple of the limit, spread over its shards, and sampled."""
_LEAST_ROW_BYTES = 16
"""What a row counts at least against that multiple: a stream of empty rows must end, too."""
_ROWS_AT_ONCE = 64


def sample_dataset(
    source: HuggingFaceSource, root: Path, *, limit_bytes: float, generator: np.random.Generator
) -> Sampled:
    """Sample a dataset.

    A stream has no way into the middle of a shard: documents far behind in their shards are never drawn. Its size is
    known only where its description gives the number of rows, or where it was read to its end; else `total_bytes` is
    what was read, and `is_size_known` false.

    Args:
        source: the dataset.
        root: the folder that relative paths start from.
        limit_bytes: most UTF-8 bytes of text.
        generator: decides.

    Raises:
        TikmixError: the dataset cannot be loaded, or a row has no such field of text.
    """
    with naming_dataset(source, root):
        dataset = open_dataset(source, root)
        if hasattr(dataset, "__len__"):
            rows = _random_rows(dataset, source, generator)
            return fill(rows, limit_bytes=limit_bytes, raw_total=len(dataset))
        return _sample_stream(dataset, source, limit_bytes, generator)


def _random_rows(
    dataset: Any, source: HuggingFaceSource, generator: np.random.Generator
) -> Iterator[tuple[str, float]]:
    if source.field not in dataset.column_names:
        raise TikmixError(f"{source.path}: {missing_field(source.field, dataset.column_names)}")
    column = dataset.select_columns([source.field])
    numbers = shuffled(len(dataset), generator)
    while rows := list(itertools.islice(numbers, _ROWS_AT_ONCE)):
        for row, text in zip(rows, column[rows][source.field], strict=True):
            yield text_of({source.field: text}, source.field, f"{source.path}, row {row}"), 1


def _sample_stream(
    dataset: Any, source: HuggingFaceSource, limit_bytes: float, generator: np.random.Generator
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
                text = text_of(record, source.field, f"{source.path}, shard {shard}, row {row}")
                size = size_of(text)
                reservoir.offer(lambda text=text: text, size)  # type: ignore[misc]
                rows, read, spent = rows + 1, read + size, spent + max(size, _LEAST_ROW_BYTES)
                bar.update(max(size, _LEAST_ROW_BYTES))
    listed = (dataset.info.splits or {}).get(source.split)
    count = listed.num_examples if listed else None
    if is_whole or not rows or not count:
        return Sampled(reservoir.texts, read, rows, is_size_known=is_whole)
    return Sampled(reservoir.texts, max(read, count * read / rows), rows)
