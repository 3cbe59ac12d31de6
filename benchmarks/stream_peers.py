"""The same mixture from other libraries, each in the fastest set-up found that still shuffles and never ends.

Every peer reads the same windows as `MixtureStream`, from the same memory maps (`datasets`: from Arrow files on disk,
which it maps too), and yields the same batches: int64 arrays of shape (batch size, context + 1). Rows stay views of the
map until one shared `collate`, because copying them one by one is slower for every peer.

Tried and slower, so left out: one or two read threads in Grain, slices of a `datasets` table instead of `iter`, reads
of 1,024 to 16,384 rows, and (domain, index) pairs through torchdata's nodes with the look-up in `collate`. Left out as
another task: `flatten_indices` in `datasets`, which rewrites the whole corpus in the order of one mixture.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Shards = Mapping[str, npt.NDArray[np.uint16]]
Batches = Iterator[npt.NDArray[np.int64]]
Build = Callable[[Shards, Mapping[str, float], Path], Batches]

CONTEXT = 256
BATCH_SIZE = 16
ROWS_PER_READ = 256
SEED = 0


class WindowsOfShard:
    """Random access to a shard's windows, as Grain and PyTorch call for; a window is a view."""

    def __init__(self, tokens: npt.NDArray[np.uint16]) -> None:
        # A plain array over the map: slicing np.memmap itself costs several times as much.
        self._tokens = np.asarray(tokens)

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // CONTEXT

    def __getitem__(self, index: int) -> npt.NDArray[np.uint16]:
        start = int(index) * CONTEXT
        return self._tokens[start : start + CONTEXT + 1]


def collate(rows: list[npt.NDArray[np.uint16]]) -> npt.NDArray[np.int64]:
    """Join rows to a batch of int64: the fastest of concatenate, stack, array and a loop."""
    return np.concatenate(rows).astype(np.int64).reshape(len(rows), -1)


def _grain_mix(shards: Shards, weights: Mapping[str, float]) -> Any:
    import grain

    sources = [
        grain.MapDataset.source(WindowsOfShard(tokens)).seed(SEED + position).shuffle().repeat()
        for position, tokens in enumerate(shards.values())
    ]
    mix = grain.MapDataset.mix(sources, [weights[name] for name in shards])
    return mix.batch(BATCH_SIZE, drop_remainder=True, batch_fn=collate)


def grain_without_threads(shards: Shards, weights: Mapping[str, float], _: Path) -> Batches:
    """Iterate with reading in the calling thread, as Grain advises for data in memory."""
    import grain

    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(_grain_mix(shards, weights).to_iter_dataset(options))


def grain_defaults(shards: Shards, weights: Mapping[str, float], _: Path) -> Batches:
    """Iterate with Grain's default read threads and prefetch buffer."""
    return iter(_grain_mix(shards, weights).to_iter_dataset())


def grain_by_index(shards: Shards, weights: Mapping[str, float], _: Path) -> Batches:
    """Index the mixed map dataset directly, without an iterator of Grain's."""
    batches = _grain_mix(shards, weights)
    return (batches[step] for step in range(len(batches)))


def grain_iterators(shards: Shards, weights: Mapping[str, float], _: Path) -> Batches:
    """Mix iterators instead of maps, batching after the mix."""
    import grain

    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    sources = [
        grain.MapDataset.source(WindowsOfShard(tokens))
        .seed(SEED + position)
        .shuffle()
        .repeat()
        .to_iter_dataset(options)
        for position, tokens in enumerate(shards.values())
    ]
    mix = grain.IterDataset.mix(sources, [weights[name] for name in shards])
    return iter(mix.batch(BATCH_SIZE, drop_remainder=True, batch_fn=collate))


def _arrow_datasets(shards: Shards, folder: Path) -> dict[str, Any]:
    """Write the windows of each shard to Arrow files as fixed-size lists, once, and map them."""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"tokens": datasets.List(datasets.Value("uint16"), length=CONTEXT + 1)})
    mapped = {}
    for name, tokens in shards.items():
        path = folder / f"{name}.arrow"
        if not path.exists():
            windows = WindowsOfShard(tokens)
            rows = [windows[index] for index in range(len(windows))]
            datasets.Dataset.from_dict({"tokens": rows}, features=features).save_to_disk(path)
        mapped[name] = datasets.load_from_disk(str(path))
    return mapped


def _shuffled_mix(shards: Shards, weights: Mapping[str, float], folder: Path) -> Any:
    return _interleave(
        {name: data.shuffle(seed=SEED) for name, data in _arrow_datasets(shards, folder).items()}, weights
    )


def _interleave(mapped: Mapping[str, Any], weights: Mapping[str, float]) -> Any:
    import datasets

    probabilities = [weights[name] for name in mapped]
    return datasets.interleave_datasets(
        list(mapped.values()), probabilities=probabilities, seed=SEED, stopping_strategy="all_exhausted"
    )


def _rows_of_table(table: Any) -> npt.NDArray[np.int64]:
    """Convert an Arrow batch without going through Python objects."""
    column = table["tokens"].combine_chunks()
    return column.flatten().to_numpy().astype(np.int64).reshape(len(column), -1)


def datasets_numpy(shards: Shards, weights: Mapping[str, float], folder: Path) -> Batches:
    """Shuffle and interleave map-style datasets, and iterate batches in the numpy format."""
    mixed = _shuffled_mix(shards, weights, folder).with_format("numpy")
    while True:
        for batch in mixed.iter(BATCH_SIZE, drop_last_batch=True):
            yield batch["tokens"].astype(np.int64)


def datasets_arrow(shards: Shards, weights: Mapping[str, float], folder: Path) -> Batches:
    """Do the same in the arrow format, converting each batch by hand."""
    mixed = _shuffled_mix(shards, weights, folder).with_format("arrow")
    while True:
        for table in mixed.iter(BATCH_SIZE, drop_last_batch=True):
            yield _rows_of_table(table)


def datasets_read_ahead(shards: Shards, weights: Mapping[str, float], folder: Path) -> Batches:
    """Do the same with many rows per read, cut into batches: the fewest calls into the table per row."""
    mixed = _shuffled_mix(shards, weights, folder).with_format("arrow")
    while True:
        for table in mixed.iter(ROWS_PER_READ, drop_last_batch=True):
            rows = _rows_of_table(table)
            yield from (rows[start : start + BATCH_SIZE] for start in range(0, ROWS_PER_READ, BATCH_SIZE))


def datasets_streaming(shards: Shards, weights: Mapping[str, float], folder: Path) -> Batches:
    """Interleave iterable datasets, each with a shuffle buffer."""
    streamed = {
        name: dataset.to_iterable_dataset(num_shards=16).shuffle(seed=SEED, buffer_size=1000)
        for name, dataset in _arrow_datasets(shards, folder).items()
    }
    mixed = _interleave(streamed, weights).with_format("numpy")
    while True:
        for batch in mixed.iter(BATCH_SIZE, drop_last_batch=True):
            yield collate(batch["tokens"])


def _weighted_sampler(nodes: Mapping[str, Any], weights: Mapping[str, float]) -> Batches:
    from torchdata.nodes import Batcher, Mapper, MultiNodeWeightedSampler, StopCriteria

    mix = MultiNodeWeightedSampler(
        nodes, dict(weights), stop_criteria=StopCriteria.CYCLE_FOREVER, rank=0, world_size=1, seed=SEED
    )
    return iter(Mapper(Batcher(mix, BATCH_SIZE), collate))


def torchdata_samplers(shards: Shards, weights: Mapping[str, float], _: Path) -> Batches:
    """Draw window indices by PyTorch's RandomSampler and look them up, domain by domain."""
    import torch
    from torchdata.nodes import MapStyleWrapper

    nodes = {}
    for position, (name, tokens) in enumerate(shards.items()):
        windows = WindowsOfShard(tokens)
        generator = torch.Generator().manual_seed(SEED + position)
        nodes[name] = MapStyleWrapper(windows, torch.utils.data.RandomSampler(windows, generator=generator))
    return _weighted_sampler(nodes, weights)


class ShuffledWindows:
    """A new permutation of a shard's windows for every iterator: one node less per row than a sampler and a mapper."""

    def __init__(self, tokens: npt.NDArray[np.uint16], seed: int) -> None:
        self._windows = WindowsOfShard(tokens)
        self._generator = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint16]]:
        return map(self._windows.__getitem__, self._generator.permutation(len(self._windows)).tolist())


def torchdata_iterables(shards: Shards, weights: Mapping[str, float], _: Path) -> Batches:
    """Wrap one shuffling iterable per domain: the fewest nodes per row."""
    from torchdata.nodes import IterableWrapper

    nodes = {
        name: IterableWrapper(ShuffledWindows(tokens, SEED + position))
        for position, (name, tokens) in enumerate(shards.items())
    }
    return _weighted_sampler(nodes, weights)


PEERS: dict[str, dict[str, Build]] = {
    "grain": {
        "mix of maps, no threads": grain_without_threads,
        "mix of maps, defaults": grain_defaults,
        "mix of maps, by index": grain_by_index,
        "mix of iterators, no threads": grain_iterators,
    },
    "datasets": {
        "interleave, numpy format": datasets_numpy,
        "interleave, arrow format": datasets_arrow,
        "interleave, arrow, read ahead": datasets_read_ahead,
        "interleave, streaming": datasets_streaming,
    },
    "torchdata": {
        "weighted sampler, samplers": torchdata_samplers,
        "weighted sampler, iterables": torchdata_iterables,
    },
}
