"""The blocks of a transformer, whatever its family: the unit that is sharded, recomputed and compiled."""

from typing import TYPE_CHECKING

from torch import nn

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import TrainParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def blocks_of(model: "PreTrainedModel") -> list[nn.Module]:
    """Return the modules that the architecture says must not be split, in their order; none where it says nothing."""
    kinds = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in kinds]


def prepare_blocks(model: "PreTrainedModel", train: TrainParameters) -> None:
    """Recompute and compile block by block where the parameters ask for it; names of parameters stay as they are.

    Raises:
        TikmixError: the architecture cannot do it.
    """
    if train.activation_checkpointing:
        try:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            raise TikmixError(
                f"train.activation_checkpointing: {type(model).__name__} has no blocks to recompute ({error}). "
                "Set it to false."
            ) from error
    if train.compile_blocks:
        blocks = blocks_of(model)
        if not blocks:
            raise TikmixError(
                f"train.compile_blocks: {type(model).__name__} names no blocks (_no_split_modules). Set it to false."
            )
        for block in blocks:
            block.compile()
