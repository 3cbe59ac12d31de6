"""Stochastic rounding to bfloat16: up or down at random, so that the mean of what is kept is what was given.

A float32 has 16 more bits of mantissa than a bfloat16. Adding a uniform random number of 16 bits and cutting them off
rounds away from zero with just the probability that is missing. The relative error is below 2⁻⁷, independent between
numbers and without bias, and so next to nothing in a product of two long vectors; rounding to the nearest would have a
bias wherever small numbers are added up.
"""

import hashlib

import torch
from torch import Tensor

_SLAB = 1 << 22
"""Numbers rounded at a time, for the random bits take as much memory as they do."""


def to_bfloat16(values: Tensor, generator: torch.Generator) -> Tensor:
    """Round finite float32 values at random, on the CPU; equal states of the generator give equal bits.

    Args:
        values: of any shape; not changed.
        generator: of the CPU, from which 16 bits are drawn per value.

    Returns:
        The same shape in bfloat16.
    """
    flat = values.detach().to("cpu", torch.float32).reshape(-1)
    rounded = torch.empty(flat.numel(), dtype=torch.bfloat16)
    for start in range(0, flat.numel(), _SLAB):
        bits = flat[start : start + _SLAB].view(torch.int32)
        drawn = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, generator=generator)
        rounded[start : start + _SLAB] = ((bits + drawn) & ~0xFFFF).view(torch.float32)
    return rounded.reshape(values.shape)


def generator_of(identity: str) -> torch.Generator:
    """Return the generator for what has this identity, so that it is rounded alike whenever it is measured."""
    digest = hashlib.sha256(identity.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
