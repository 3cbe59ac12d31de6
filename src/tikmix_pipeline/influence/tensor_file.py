"""Safetensors files in parts: one tensor, or a slice of it along its first axis, from or to its place in the file.

A safetensors file is an 8-byte length, a JSON header with every tensor's type, shape and place, and the bytes. Reading
a place with `preadv` costs some 20 µs and no memory but the buffer. The library's `get_slice` maps the whole file: ten
times slower for many small slices, and the pages it touches count as memory of the process. To write, the library
wants all tensors at once, and copies them; here processes that have a part of them each write it to one file that is
laid out before.
"""

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tikmix_pipeline.errors import TikmixError

_DTYPES = {
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LENGTH_BYTES = 8
_ALIGNMENT = 8


@dataclass(frozen=True)
class _Place:
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class TensorFile:
    """The header of one file."""

    path: Path
    metadata: Mapping[str, str]
    """What was written beside the tensors."""
    _places: Mapping[str, _Place]

    @classmethod
    def open(cls, path: Path) -> "TensorFile":
        """Read a file's header.

        A file that is missing, truncated or of other types of tensors raises a TikmixError.
        """
        try:
            header, start = _read_header(path)
            metadata: dict[str, str] = header.pop("__metadata__", {})
            places = {
                name: _Place(_DTYPES[entry["dtype"]], tuple(entry["shape"]), start + entry["data_offsets"][0])
                for name, entry in header.items()
            }
            size = max((place.offset + _bytes(place.dtype, place.shape) for place in places.values()), default=start)
            if path.stat().st_size != size:
                raise ValueError(f"it has {path.stat().st_size} bytes instead of {size}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TikmixError(f"{path} is damaged ({error}). Run the stage that makes it again.") from error
        return cls(path, metadata, places)

    @classmethod
    def lay_out(
        cls,
        path: Path,
        tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        metadata: Mapping[str, str],
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> "TensorFile":
        """Write the header of a file and make room for its tensors, of the given types and shapes, to be written.

        Equal arguments give equal bytes. Of several processes, which all call this, one writes it.
        """
        if process_group.is_rank_zero:
            _lay_out(path, tensors, metadata)
        process_group.barrier()
        return cls.open(path)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by tensor."""
        return {name: place.shape for name, place in self._places.items()}

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a tensor."""
        return self._places[name].dtype

    def read_into(self, name: str, row: Tensor, start: int = 0) -> None:
        """Fill `row`, contiguous and on the CPU, with the slice of tensor `name` that begins at `start` of axis 0.

        A file that has been cut or removed since it was opened raises a TikmixError.
        """
        self._read(_bytes_of(row), self._offset(name, start))

    def read_flat(self, name: str, values: Tensor, start: int) -> None:
        """Fill `values` with as many scalars of tensor `name`, taken flat, from `start` on; errors as `read_into`."""
        place = self._places[name]
        self._read(_bytes_of(values), place.offset + start * place.dtype.itemsize)

    def _read(self, buffer: memoryview, offset: int) -> None:
        try:
            with _opened(self.path, os.O_RDONLY) as descriptor:
                while buffer:
                    count = os.preadv(descriptor, [buffer], offset)
                    if count == 0:
                        raise OSError("it ends too early")
                    buffer, offset = buffer[count:], offset + count
        except OSError as error:
            raise TikmixError(f"{self.path} cannot be read ({error}). Run the stage that makes it again.") from error

    def write(self, name: str, values: Tensor, start: int = 0) -> None:
        """Put `values`, of the tensor's type, where the slice of tensor `name` lies that begins at `start` of axis 0.

        A full disk, or a file that has been removed, raises a TikmixError.
        """
        self._write(_bytes_of(values.detach().cpu().contiguous()), self._offset(name, start))

    def write_flat(self, name: str, values: Tensor, start: int) -> None:
        """Put `values` where scalars of tensor `name`, taken flat, lie from `start` on; errors as `write`."""
        place = self._places[name]
        self._write(_bytes_of(values.detach().cpu().contiguous()), place.offset + start * place.dtype.itemsize)

    def _write(self, buffer: memoryview, offset: int) -> None:
        try:
            with _opened(self.path, os.O_WRONLY) as descriptor:
                while buffer:
                    count = os.pwrite(descriptor, buffer, offset)
                    buffer, offset = buffer[count:], offset + count
        except OSError as error:
            raise TikmixError(f"{self.path} cannot be written ({error}). Free some space and run again.") from error

    def _offset(self, name: str, start: int) -> int:
        place = self._places[name]
        return place.offset + start * _bytes(place.dtype, place.shape[1:])


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lay_out(
    path: Path, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> None:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    # the wider types first, as the library has it, so that each tensor is aligned to its own
    for name in sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name)):
        dtype, shape = tensors[name]
        start, end = end, end + _bytes(dtype, shape)
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(_LENGTH_BYTES + len(text) + end)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(_LENGTH_BYTES).ljust(_LENGTH_BYTES, b"\0"))
        if length > path.stat().st_size:
            raise ValueError("its header is cut")
        return json.loads(stream.read(length)), _LENGTH_BYTES + length


def _bytes_of(values: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU."""
    return values.reshape(-1).view(torch.uint8).numpy().data


def _bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return dtype.itemsize * prod(shape)
