"""The Fisher of a model at a checkpoint, from one or two passes over text.

| kind | passes | |
|---|---|---|
| kfac | 1 | Kronecker factors: `kfac` |
| diagonal | 1 | eigenvalues in the standard basis: `eigenvalues` |
| ekfac | 2 | Kronecker factors, then eigenvalues in the basis of K-FAC with the same labels |

The model's `.grad`, `requires_grad`, hooks and training mode are left as they were. The result does not depend on how
the sequences are cut into batches, nor on how many processes share each batch.

Axes: B sequences, P positions, N loss-carrying positions, V vocabulary.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, remove, write_json
from tikmix_pipeline.influence.curvature.eigenvalues import Basis, EigenvaluePass
from tikmix_pipeline.influence.curvature.factors import Factors, Kind, Labels, LayerFactors
from tikmix_pipeline.influence.curvature.fisher_pass import FisherPass
from tikmix_pipeline.influence.curvature.head_batch import (
    DividedHead,
    HeadBatch,
    cross_entropy_gradient,
    draw_uniform,
    sample_labels,
)
from tikmix_pipeline.influence.curvature.hooks import ModuleHooks, Positions
from tikmix_pipeline.influence.curvature.kfac import KfacPass
from tikmix_pipeline.influence.curvature.kronecker import Decompositions, require_finite
from tikmix_pipeline.influence.curvature.layers import Layer, Layout, find_layers
from tikmix_pipeline.influence.gradients import evaluation_mode
from tikmix_pipeline.influence.tensor_file import TensorFile
from tikmix_pipeline.lm.cost import FlopCounter, ShapeCounter
from tikmix_pipeline.lm.cost_records import NO_COST, Cost
from tikmix_pipeline.lm.loss import device_of, hidden_states, next_token_logits, rows_for, tokens_for
from tikmix_pipeline.lm.output_head import divisible_head
from tikmix_pipeline.parameters.measurement import Group
from tikmix_pipeline.progress import progress_bar
from tikmix_pipeline.store.keyed import KeyedEntry

_EIGENVALUES = "EK-FAC eigenvalues"
"""The second pass of EK-FAC, in the progress bar and on disk."""
_PROGRESS = "progress.json"
_SUMS = "sums.safetensors"


@dataclasses.dataclass
class FitProgress:
    """What a fit has summed so far, on disk, so that a killed fit goes on where it was.

    state/       sums and the batches done, replaced as a whole; kept under the fit's key and its pass
    bases/       of EK-FAC: what its first pass found, as `Factors` without eigenvalues

    The folder is for this fit alone, created when needed, and emptied when the fit is done. The key names checkpoint,
    text and settings; progress under another key is ignored and overwritten. Saves are at least `seconds` apart.
    """

    folder: Path
    key: str
    seconds: float = 60.0
    _saved_at: float = dataclasses.field(default_factory=time.monotonic, init=False, repr=False)

    @property
    def bases(self) -> Path:
        """Folder of what the first of two passes found."""
        return self.folder / "bases"

    @property
    def due(self) -> bool:
        """Whether it is time for the next save."""
        return time.monotonic() - self._saved_at >= self.seconds

    def load(self, pass_name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return notes and tensors that were saved in this pass under this key; None if there are none to be read."""
        state = self._state(pass_name).find()
        try:
            return (read_json(state / _PROGRESS), load_file(state / _SUMS)) if state else None
        except (OSError, TikmixError, SafetensorError):
            return None

    def save(self, pass_name: str, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace what was saved before."""
        with self._state(pass_name).replacing() as temporary:
            temporary.mkdir()
            shapes = {name: (values.dtype, tuple(values.shape)) for name, values in tensors.items()}
            file = TensorFile.lay_out(temporary / _SUMS, shapes, {})
            for name, values in tensors.items():
                file.write(name, values)
            write_json(temporary / _PROGRESS, notes)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Delete it all; what others keep in the folder stays."""
        remove(self.bases)
        self._state("").discard()

    def _state(self, pass_name: str) -> KeyedEntry:
        return KeyedEntry(self.folder / "state", f"{self.key} {pass_name}")


def fit_factors(
    model: nn.Module,
    batches: Sequence[TokenBatch],
    *,
    kind: Kind,
    fisher: Labels,
    seed: int,
    groups: Sequence[Group],
    progress: FitProgress | None = None,
    mesh: Mesh = SINGLE_MESH,
) -> Factors:
    """Fit the Fisher to a model on training text.

    Args:
        model: the checkpoint, on the device to work on. Sums are in float32 whatever lower precision it has.
        batches: windows of text, spread evenly over domains (`gradients.take_evenly`).
        kind: how the Fisher is approximated.
        fisher: labels sampled from the model (`true`), or those of the text (`empirical`).
        seed: decides the sampled labels.
        groups: kinds of parameters that take part.
        progress: where to keep what is summed so far; a fit that finds its own goes on from there, to the same bits. It
            is for a fit by one process: several begin again.
        mesh: the processes that fit together; each calls this, and returns the tensors that it owns.

    Raises:
        TikmixError: a parameter of the groups belongs to no known kind of layer, the batches carry no loss, or a
            factor is not finite.
    """
    layers = find_layers(model, groups)
    tokens = sum(batch.loss_tokens for batch in batches)
    if tokens == 0:
        raise TikmixError("There is no text to fit the curvature on. Raise influence.factor_tokens.")
    if progress is not None:
        settings = f"{kind} {fisher} {seed} {' '.join(sorted(groups))} {len(batches)} {tokens}"
        progress = dataclasses.replace(progress, key=f"{progress.key} {settings}")
    fit = _Fit(model, batches, fisher, seed, tokens, progress, mesh)
    fit_kind = {"diagonal": _fit_diagonal, "kfac": _fit_kfac, "ekfac": _fit_ekfac}[kind]
    factors = fit_kind(fit, layers, Factors(kind, fisher, seed, tokens, tuple(groups), (), {}))
    for layer in factors.layers:
        for name in layer.tensors.values():
            if name in factors.tensors:  # of ranks each has its own
                require_finite(factors.tensors[name], layer.layer)
    if progress is not None:
        progress.remove()
    return factors


def _fit_kfac(fit: "_Fit", layers: Sequence[Layer], empty: Factors) -> Factors:
    kfac = KfacPass(layers, fit.mesh)
    tensors, cost = fit.through("K-FAC", kfac)
    return dataclasses.replace(empty, layers=tuple(kfac.factors()), tensors=tensors, cost=cost)


def _fit_diagonal(fit: "_Fit", layers: Sequence[Layer], empty: Factors) -> Factors:
    """Take the bias back out of the matrix of its layer: a diagonal has one block per parameter."""
    found, cost = fit.through("Fisher diagonal", EigenvaluePass(layers, {}, fit.mesh))
    factors: list[LayerFactors] = []
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        if layer.kind == "head" and layer.tied:
            continue
        names = layer.parameters.values() if layer.kind == "elementwise" else layer.layout.names
        factors += [
            LayerFactors(layer.name, layer.group, "diagonal", Layout(name), {"eigenvalues": name}) for name in names
        ]
        if layer.kind == "elementwise":
            kept = {name: f"{layer.name}/{key}" for key, name in layer.parameters.items()}
            tensors |= {name: found[key] for name, key in kept.items() if key in found}
        elif f"{layer.name}/eigenvalues" in found:
            tensors |= layer.layout.scatter(found[f"{layer.name}/eigenvalues"])
    tensors = {name: values.contiguous() for name, values in tensors.items()}
    return dataclasses.replace(empty, layers=tuple(factors), tensors=tensors, cost=cost)


def _fit_ekfac(fit: "_Fit", layers: Sequence[Layer], empty: Factors) -> Factors:
    if fit.progress is not None and fit.progress.load(_EIGENVALUES) is not None:
        found = Factors.load(fit.progress.bases)
    else:
        kfac = _fit_kfac(fit, layers, empty)
        with FlopCounter() as counter:
            found = _eigenbases(kfac, fit)
        flops = sum(fit.mesh.world.all_gather_object(counter.flops))
        found = dataclasses.replace(found, cost=kfac.cost + Cost(flops=flops))
        if fit.progress is not None:
            found.save(fit.progress.bases)
            fit.progress.save(_EIGENVALUES, {"done": 0}, {})  # only now has this pass begun
    bases = {
        of.layer: Basis(
            rows_oo=found.tensors[of.tensors["rows"]].to(fit.device) if "rows" in of.tensors else None,
            columns_ii=found.tensors[of.tensors["columns"]].to(fit.device),
        )
        for of in found.layers
        if "columns" in of.tensors
    }
    matrices = [layer for layer in layers if layer.kind != "elementwise"]
    corrected, cost = fit.through(_EIGENVALUES, EigenvaluePass(matrices, bases, fit.mesh))
    factors = [
        dataclasses.replace(of, tensors={**of.tensors, "eigenvalues": f"{of.layer}/eigenvalues"})
        if of.layer in bases
        else of
        for of in found.layers
    ]
    mine = found.names_for(fit.mesh.world)
    kept = {name for of in found.layers if of.layer in mine for name in of.tensors.values()}
    tensors = {**{name: values for name, values in found.tensors.items() if name in kept}, **corrected}
    return dataclasses.replace(empty, layers=tuple(factors), tensors=tensors, cost=found.cost + cost)


def _eigenbases(kfac: Factors, fit: "_Fit") -> Factors:
    """Replace Kronecker factors by their eigenvectors; diagonals stay as they are.

    Each process decomposes its share; then all have the eigenvectors of every layer, to rotate their sequences by.
    """
    process_group = fit.mesh.world
    kfac = dataclasses.replace(kfac, tensors=process_group.all_gather(kfac.tensors))
    mine = kfac.names_for(process_group)
    decompositions = Decompositions(kfac, fit.device, [of for of in kfac.layers if of.layer in mine])
    layers: list[LayerFactors] = []
    tensors: dict[str, Tensor] = {}
    for of in kfac.layers:
        names = _names_in_eigenbasis(of)
        layers.append(dataclasses.replace(of, tensors=names))
        if of.layer not in mine:
            continue
        if "eigenvalues" in names:
            tensors[names["eigenvalues"]] = kfac.tensors[names["eigenvalues"]]
            continue
        block = decompositions.of(of)
        tensors[names["columns"]] = block.columns_ii
        if block.rows_oo is not None:
            tensors[names["rows"]] = block.rows_oo
    return dataclasses.replace(kfac, layers=tuple(layers), tensors=process_group.all_gather(tensors))


def _names_in_eigenbasis(of: LayerFactors) -> dict[str, str]:
    """Name the tensors that take the place of a layer's factors."""
    if "eigenvalues" in of.tensors:
        return dict(of.tensors)
    if of.kind != "kronecker":
        return {"columns": f"{of.layer}/columns"}
    # layers that share an input share its eigenvectors
    return {"columns": f"{of.tensors['input'].removesuffix('/input')}/columns", "rows": f"{of.layer}/rows"}


@dataclasses.dataclass(frozen=True)
class _Fit:
    """A model, the text it is fitted on, and what is needed to go through it once more."""

    model: nn.Module
    batches: Sequence[TokenBatch]
    fisher: Labels
    seed: int
    tokens: int
    progress: FitProgress | None
    mesh: Mesh

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @cached_property
    def divided_head(self) -> DividedHead | None:
        """The head, if a batch has more logits than can be held; whole, also where the model is in shards."""
        largest = max(batch.loss_tokens for batch in self.batches)  # the same for all ranks
        head = divisible_head(self.model, largest)
        if head is None:
            return None
        bias_V = None if head.bias is None else self.mesh.full_tensor(head.bias.detach())
        weight_Vi = self.mesh.full_tensor(head.weight.detach())
        return DividedHead(head, weight_Vi, bias_V)

    def through(self, pass_name: str, fisher_pass: FisherPass) -> tuple[dict[str, Tensor], Cost]:
        """Go through the text once and return the means over its tokens by name, and what that took."""
        generator = torch.Generator().manual_seed(self.seed)
        done, counter = self._restore(pass_name, fisher_pass, generator)
        hooks = ModuleHooks(self.model, fisher_pass.hooked, fisher_pass.head, fisher_pass.receive)
        with evaluation_mode(self.model):
            _ = self.divided_head  # found before operations are counted
        with evaluation_mode(self.model), hooks.attached(), progress_bar(pass_name, self.tokens, "tok") as bar:
            for index, batch in enumerate(self.batches):
                if index >= done and batch.loss_tokens:
                    mine = rows_for(self.mesh.world, batch)
                    uniform_N = draw_uniform(batch.loss_tokens, generator)
                    with counter.batch(mine):
                        self._add_batch(mine, fisher_pass, hooks, uniform_N[tokens_for(self.mesh.world, batch)])
                bar.update(batch.loss_tokens)
                if index >= done and self.progress is not None and self.progress.due:
                    notes = {"done": index + 1, "pass": fisher_pass.notes(), "counted": dataclasses.asdict(counter)}
                    self.progress.save(pass_name, notes, fisher_pass.sums() | {"generator": generator.get_state()})
        return fisher_pass.finish(self.tokens), sum(self.mesh.world.all_gather_object(counter.cost), NO_COST)

    def _restore(self, pass_name: str, fisher_pass: FisherPass, generator: torch.Generator) -> tuple[int, ShapeCounter]:
        """Return how many batches are done, and what they took."""
        saved = self.progress.load(pass_name) if self.progress is not None else None
        if saved is None or saved[0]["done"] == 0:
            return 0, ShapeCounter()
        notes, tensors = saved
        generator.set_state(tensors.pop("generator"))
        fisher_pass.prepare(notes["pass"])
        for name, values in fisher_pass.sums().items():
            values.copy_(tensors[name])
        return int(notes["done"]), ShapeCounter.of_dict(notes["counted"])

    def _add_batch(self, batch: TokenBatch, fisher_pass: FisherPass, hooks: ModuleHooks, uniform_N: Tensor) -> None:
        at = Positions.of(batch, self.device)
        with hooks.batch(at), torch.enable_grad():
            tokens_BS = torch.from_numpy(batch.tokens_BS).to(self.device)
            text_N, expected = tokens_BS[:, 1:][at.carries_BP], self.fisher == "true"

            def label(of: slice, probability_nV: Tensor) -> Tensor:
                return sample_labels(probability_nV, uniform_N[of]) if expected else text_N[of]

            head = None
            if self.divided_head is not None:
                outputs_No = at.rows(
                    hidden_states(self.model, tokens_BS, self.divided_head.module), "of the output head"
                )
                labels_N, gradient_No = self.divided_head.labels(outputs_No.detach(), label)
                if fisher_pass.head is not None:
                    head = self.divided_head.batch(outputs_No.detach(), labels_N, expected=expected)
            else:
                logits_BPV = next_token_logits(self.model, tokens_BS)
                outputs_No = at.rows(logits_BPV, "logits")
                probability_NV = outputs_No.detach().softmax(dim=1)
                labels_N = label(slice(None), probability_NV)
                if fisher_pass.head is not None:
                    call = hooks.head_call()
                    head = HeadBatch.of_logits(call, logits_BPV, probability_NV, labels_N, at=at, expected=expected)
                gradient_No = cross_entropy_gradient(probability_NV, labels_N)
            fisher_pass.end_forward(hooks.calls, at)
            hooks.backward(outputs_No, gradient_No)
            fisher_pass.end_batch(head, at)
