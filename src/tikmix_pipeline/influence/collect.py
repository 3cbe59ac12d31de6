"""Gradient chunks measured into a store: every chunk once, whatever happens in between.

A chunk that is there under its identity is not measured again. A kill therefore loses at most one chunk, another set of
tasks or another domain costs only its own passes, and nothing of another checkpoint or setting is ever taken. What each
chunk took is written down with it: a measurement that was killed and resumed has the cost of one that was not.

Of several processes (`mesh`) each copy of the model takes the next of the missing chunks, and its processes share it.

Cost: one backward pass over every missing sequence. Memory: one copy of the trainable parameters, beside the model.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.files import require_space
from tikmix_pipeline.influence.gradients import (
    MeanGradient,
    evaluation_mode,
    mean_gradient,
    set_name,
    sum_dtype,
    trainable_parameters,
)
from tikmix_pipeline.influence.store import GradientStore, Sets, Side, chunk_identity
from tikmix_pipeline.lm.cost import SequenceFlops
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.parameters.measurement import KeptPrecision
from tikmix_pipeline.progress import progress_bar


class Chunk(NamedTuple):
    """One chunk of a measurement."""

    side: Side
    name: str
    """Of the set."""
    number: int
    batches: Sequence[TokenBatch]
    identity: str

    @property
    def of(self) -> str:
        """What it is called in error messages."""
        return set_name(self.side, self.name)


def measurement_key(model: nn.Module, code: str, mesh: Mesh = SINGLE_MESH) -> str:
    """Name what all chunks of one measurement share: the weights and shape of the model, and the code that runs.

    `code` is a digest of the code, and of whatever else a caller wants chunks told apart by. How the model is spread
    does not change the name.
    """
    config = getattr(model, "config", None)
    # not the class where there is a configuration: to spread a model is to change it
    described = config.to_dict() if config is not None else {"class": repr(type(model))}
    described.pop("_name_or_path", None)  # where the checkpoint lies is no part of it
    digest = hashlib.sha256(json.dumps([code, described], sort_keys=True, default=str).encode())
    for name, values in model.state_dict().items():
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(mesh.full_tensor(values).detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def collect_gradients(
    model: nn.Module,
    sets: Sets,
    store: GradientStore,
    *,
    key: str,
    notes: Mapping[str, Any] | None = None,
    choosing: Cost = NO_COST,
) -> None:
    """Measure the mean gradient of every chunk that the store lacks, tasks first.

    Args:
        model: the checkpoint, on the device to work on; left as it was.
        sets: chunks by side and name (`gradients.deal_sets`).
        store: where the chunks are, and go; the processes of its mesh measure them, each of its processes calling this.
        key: names the checkpoint and the code (`measurement_key`).
        notes: JSON-able values that are kept with the measurement.
        choosing: what was spent on finding out how many chunks are enough.

    Raises:
        TikmixError: the disk cannot hold the missing chunks, or a gradient is not finite.
    """
    collection = Collection(model, sets, store, key)
    missing = collection.begin()
    if missing:
        _measure(model, missing, collection)
    identities: dict[Side, dict[str, list[str]]] = {"task": {}, "domain": {}}
    for chunk in collection.chunks:
        identities[chunk.side].setdefault(chunk.name, []).append(chunk.identity)
    store.finish(identities, notes or {}, choosing)


class Collection:
    """The chunks of a measurement, those that a store has and those that it lacks."""

    def __init__(self, model: nn.Module, sets: Sets, store: GradientStore, key: str) -> None:
        """Take what `collect_gradients` does; nothing is written yet."""
        self.chunks = list(_chunks(model, sets, key, store.precision))
        self.store = store
        self._model, self._key = model, key

    def missing(self) -> list[Chunk]:
        """Return the chunks that the store lacks."""
        held = self.store.mesh.world.broadcast_object(lambda: [self._holds(chunk) for chunk in self.chunks])
        return [chunk for chunk, is_there in zip(self.chunks, held, strict=True) if not is_there]

    def begin(self) -> list[Chunk]:
        """Make room in the store, and return what it lacks; a disk that cannot hold that raises a TikmixError."""
        self.store.begin(self._key)
        missing = self.missing()
        _require_space(self._model, self.store, len(missing))
        if missing:
            _ = self._flops  # counted while no gradient is in memory
        return missing

    def write(self, chunk: Chunk, mean: MeanGradient) -> None:
        """Write a chunk's gradient, with what its passes take by themselves."""
        cost = self.cost(chunk.batches)
        self.store.write(chunk.side, chunk.name, chunk.number, mean, key=self._key, identity=chunk.identity, cost=cost)

    def cost(self, batches: Sequence[TokenBatch]) -> Cost:
        """Return what a pass forward and one back take, over each batch."""
        return self._flops.cost(batches)

    @cached_property
    def _flops(self) -> SequenceFlops:
        # of all chunks and not of the missing ones, so that every run counts the same
        every = (batch for chunk in self.chunks for batch in chunk.batches)
        return training_flops(self._model, every, self.store.mesh)

    def _holds(self, chunk: Chunk) -> bool:
        return self.store.holds(chunk.side, chunk.name, chunk.number, chunk.identity)


def training_flops(model: nn.Module, batches: Iterable[TokenBatch], mesh: Mesh = SINGLE_MESH) -> SequenceFlops:
    """Count a pass forward and one back, over sequences as long as the longest of these and shorter ones."""
    longest = max(batch.tokens_BS.shape[1] for batch in batches) - 1
    with evaluation_mode(model):  # on the model itself; to count every chunk would slow a small one down
        return SequenceFlops.of(model, longest, training=True, mesh=mesh)


def _measure(model: nn.Module, missing: Sequence[Chunk], collection: Collection) -> None:
    """Measure and write the chunks that fall to this process's copy."""
    mesh = collection.store.mesh
    mine = missing[mesh.replicate.rank :: mesh.replicate.world_size]
    total = sum(batch.loss_tokens for chunk in mine for batch in chunk.batches)
    with progress_bar("gradients", total, "tok") as bar:
        for chunk in mine:
            mean = mean_gradient(model, chunk.batches, of=chunk.of, advance=bar.update, mesh=mesh)
            collection.write(chunk, mean)
            del mean  # or it would live on beside the next


def _chunks(model: nn.Module, sets: Sets, key: str, kept: KeptPrecision) -> Iterator[Chunk]:
    precision = " ".join(sorted({str(parameter.dtype) for parameter in trainable_parameters(model).values()}))
    if kept != "float32":
        precision += f" kept in {kept}"
    for side in get_args(Side):
        for name, chunks in sets.get(side, {}).items():
            for number, batches in enumerate(chunks):
                yield Chunk(side, name, number, batches, chunk_identity(batches, key, precision))


def _require_space(model: nn.Module, store: GradientStore, missing: int) -> None:
    parameters = trainable_parameters(model).values()
    size = sum(p.numel() * store.kept_dtype(torch.empty(0, dtype=sum_dtype(p))).itemsize for p in parameters)
    require_space(
        store.folder,
        missing * size,
        f"The gradients of {missing} chunks",
        "lower influence.micro_batches, the chunks of every task and domain (in auto mode also influence.max_tokens), "
        "keep them in half the room (influence.kept_precision=bfloat16), or keep none of the domains "
        "(influence.gradients=stream, with optimize.method=paper)",
    )
