"""What a writer returns."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Realised:
    """The last stage as the trainer will follow it, after rounding to its grid.

    Attributes:
        start_step: optimiser steps done before it.
        start_tokens: training tokens read before it.
        stated: weights as the file states them, in the trainer's unit; only domains with weight.
        per_token: the shares of tokens that they amount to.
    """

    start_step: int
    start_tokens: int
    stated: Mapping[str, float]
    per_token: Mapping[str, float]


@dataclass(frozen=True)
class Exported:
    """The files of one trainer.

    Attributes:
        trainer: its name in `TRAINERS`.
        files: text by file name.
        realised: the last stage as the trainer will follow it.
        unit: what the weights in the files count.
        notes: what a user should know before training with them, in sentences.
        switch: how to change over to the last stage in mid-run, in one line.
    """

    trainer: str
    files: Mapping[str, str]
    realised: Realised
    unit: str
    notes: tuple[str, ...]
    switch: str
