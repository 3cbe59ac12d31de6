"""AdamW, or Muon on the matrices of the blocks with AdamW on the rest; state kept by parameter name.

State travels as plain tensors named `<parameter>/<entry>`, which safetensors can hold: no pickle.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tikmix_pipeline.parameters import TrainParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NamedOptimizer:
    """One or two torch optimisers behind one `step`, with state by parameter name."""

    def __init__(self, model: "PreTrainedModel", parameters: TrainParameters) -> None:
        self._peak_rates: list[float] = []
        self._optimizers: list[torch.optim.Optimizer] = []
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        muon_names = _block_matrices(model) & named.keys() if parameters.optimizer == "muon" else set()
        self._add_adamw({name: p for name, p in named.items() if name not in muon_names}, parameters)
        if muon_names:
            self._add_muon([named[name] for name in sorted(muon_names)], parameters)
        self._named = named

    def _add_adamw(self, named: Mapping[str, nn.Parameter], parameters: TrainParameters) -> None:
        groups = [
            {"params": [p for p in named.values() if p.ndim >= 2], "weight_decay": parameters.weight_decay},
            {"params": [p for p in named.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimizers.append(
            torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=parameters.learning_rate,
                betas=(parameters.beta1, parameters.beta2),
                eps=parameters.epsilon,
                fused=True,
            )
        )
        self._peak_rates.append(parameters.learning_rate)

    def _add_muon(self, matrices: list[nn.Parameter], parameters: TrainParameters) -> None:
        self._optimizers.append(
            torch.optim.Muon(matrices, lr=parameters.muon_learning_rate, weight_decay=parameters.weight_decay)
        )
        self._peak_rates.append(parameters.muon_learning_rate)

    def step(self, rate_factor: float) -> None:
        """Take one step at `rate_factor` times the peak learning rates and clear the gradients."""
        for optimizer, peak_rate in zip(self._optimizers, self._peak_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak_rate * rate_factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors named `<parameter>/<entry>`; empty before the first step."""
        return {
            f"{name}/{entry}": value
            for name, parameter in self._named.items()
            for optimizer in self._optimizers
            for entry, value in optimizer.state.get(parameter, {}).items()
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_tensors` returned; moves it to each parameter's device."""
        owners = {
            parameter: optimizer
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for key, value in tensors.items():
            name, entry = key.rsplit("/", 1)
            parameter = self._named[name]
            owners[parameter].state[parameter][entry] = value.to(parameter.device, copy=True)


def _block_matrices(model: "PreTrainedModel") -> set[str]:
    """Names of 2-D weights that belong to neither an embedding nor the output head."""
    outside = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    outside |= {id(p) for p in model.get_output_embeddings().parameters()}
    return {name for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in outside}
