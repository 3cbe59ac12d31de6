"""AdamW, or Muon on the matrices of the blocks with AdamW on the rest; state kept by parameter name.

State travels as plain tensors named `<parameter>/<entry>`, which safetensors can hold: no pickle.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tikmix_pipeline.distributed.mesh import SINGLE_MESH
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.training import StepParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ADAMW_ENTRIES = frozenset({"step", "exp_avg", "exp_avg_sq"})
_MUON_ENTRIES = frozenset({"momentum_buffer"})


class NamedOptimizer:
    """One or two torch optimisers behind one `step`, with state by parameter name.

    Parameters that do not require a gradient are left out.
    """

    def __init__(self, model: "PreTrainedModel", parameters: StepParameters) -> None:
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        by_muon = _block_matrices(model) & self._named.keys() if parameters.optimizer == "muon" else set()
        by_adamw = [parameter for name, parameter in self._named.items() if name not in by_muon]
        self._peak_rates: dict[torch.optim.Optimizer, float] = {_adamw(by_adamw, parameters): parameters.learning_rate}
        if by_muon:
            matrices = [parameter for name, parameter in self._named.items() if name in by_muon]
            rate = parameters.muon_learning_rate
            self._peak_rates[torch.optim.Muon(matrices, lr=rate, weight_decay=parameters.weight_decay)] = rate
        self._entries = {name: _MUON_ENTRIES if name in by_muon else _ADAMW_ENTRIES for name in self._named}

    def step(self, rate_factor: float) -> None:
        """Take one step at `rate_factor` times the peak learning rates and clear the gradients."""
        for optimizer, peak_rate in self._peak_rates.items():
            for group in optimizer.param_groups:
                group["lr"] = peak_rate * rate_factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors named `<parameter>/<entry>`; empty before the first step."""
        return {
            f"{name}/{entry}": value
            for name, parameter in self._named.items()
            for optimizer in self._peak_rates
            for entry, value in optimizer.state.get(parameter, {}).items()
        }

    def blank_state_tensors(self) -> dict[str, Tensor]:
        """Return room for the state of all parameters, in shards as they are, under the names of `state_tensors`."""
        return {
            f"{name}/{entry}": torch.zeros((), device=parameter.device)
            if entry == "step"
            else torch.zeros_like(parameter, requires_grad=False)
            for name, parameter in self._named.items()
            for entry in sorted(self._entries[name])
        }

    def load_state_tensors(
        self, tensors: Mapping[str, Tensor], place: Callable[[Tensor, nn.Parameter], Tensor] = SINGLE_MESH.distribute
    ) -> None:
        """Restore what `state_tensors` returned; `place` copies a tensor to where a parameter is.

        The state of another optimiser or of other parameters raises a TikmixError, and nothing is loaded.
        """
        state: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, entry = key.rpartition("/")
            state.setdefault(name, {})[entry] = value
        for name, entries in state.items():
            if self._entries.get(name) != entries.keys():
                raise TikmixError(
                    f"The checkpoint's optimiser keeps {', '.join(sorted(entries))} of {name}; the optimiser to be "
                    f"resumed keeps {', '.join(sorted(self._entries.get(name, ()))) or 'nothing'}. Set train.optimizer "
                    "to what the checkpoint was trained with."
                )
        owners = {p: optimizer for optimizer in self._peak_rates for g in optimizer.param_groups for p in g["params"]}
        for name, entries in state.items():
            parameter = self._named[name]
            owners[parameter].state[parameter] = {entry: place(value, parameter) for entry, value in entries.items()}


def _adamw(tensors: list[nn.Parameter], parameters: StepParameters) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in tensors if p.ndim >= 2], "weight_decay": parameters.weight_decay},
        {"params": [p for p in tensors if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=parameters.learning_rate,
        betas=(parameters.beta1, parameters.beta2),
        eps=parameters.epsilon,
        fused=True,
    )


def _block_matrices(model: "PreTrainedModel") -> set[str]:
    """Names of 2-D weights that belong to neither an embedding nor the output head."""
    outside = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    head = model.get_output_embeddings()
    outside |= {id(p) for p in head.parameters()} if head is not None else set()
    return {name for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in outside}
