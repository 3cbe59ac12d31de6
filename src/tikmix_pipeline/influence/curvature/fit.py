"""The Fisher of a model at a checkpoint, from one or two passes over text.

| kind | passes | |
|---|---|---|
| kfac | 1 | second moments: `kfac` |
| diagonal | 1 | eigenvalues in the standard basis: `eigenvalues` |
| ekfac | 2 | second moments, then eigenvalues in the basis of K-FAC with the same labels |

The model's `.grad`, `requires_grad`, hooks and training mode are left as they were. The result does not depend on how
the sequences are cut into batches, nor on how many processes share each batch.

Axes: B sequences, P positions, N loss-carrying positions, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.eigenvalues import Basis, EigenvaluePass
from tikmix_pipeline.influence.curvature.factors import Factors, Kind, Labels, LayerFactors
from tikmix_pipeline.influence.curvature.fisher_pass import Pass
from tikmix_pipeline.influence.curvature.head import HeadBatch, cross_entropy_gradient, draw_uniform, sample_labels
from tikmix_pipeline.influence.curvature.hooks import Positions, Taps
from tikmix_pipeline.influence.curvature.kfac import KfacPass
from tikmix_pipeline.influence.curvature.kronecker import Decompositions
from tikmix_pipeline.influence.curvature.layers import Layer, Layout, find_layers
from tikmix_pipeline.influence.curvature.progress import FitProgress
from tikmix_pipeline.influence.gradients import evaluation_mode
from tikmix_pipeline.lm.cost import NO_COST, Cost, ShapeCounter, counting
from tikmix_pipeline.lm.loss import device_of, next_token_logits, rows_for, tokens_for
from tikmix_pipeline.parameters.measurement import Group
from tikmix_pipeline.progress import progress_bar


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
        batches: windows of text, spread evenly over domains (`parts.take_evenly`).
        kind: how the Fisher is approximated.
        fisher: labels sampled from the model (`true`), or those of the text (`empirical`).
        seed: decides the sampled labels.
        groups: kinds of parameters that take part.
        progress: where to keep what is summed so far; a fit that finds its own goes on from there, to the same bits. Of
            one process alone: several begin again.
        mesh: the processes that fit together; each calls this, and returns the tensors that it keeps.

    Raises:
        TikmixError: a parameter of the groups belongs to no known kind of layer, the batches carry no loss, or the
            second moments are not finite.
    """
    layers = find_layers(model, groups)
    tokens = sum(batch.loss_tokens for batch in batches)
    if tokens == 0:
        raise TikmixError("There is no text to fit the curvature on. Raise influence.factor_tokens.")
    if progress is not None:
        settings = f"{kind} {fisher} {seed} {' '.join(sorted(groups))} {len(batches)} {tokens}"
        progress = dataclasses.replace(progress, key=f"{progress.key} {settings}")
    run = _Run(model, batches, fisher, seed, tokens, progress, mesh)
    empty = Factors(kind, fisher, seed, tokens, tuple(groups), (), {})
    if kind == "diagonal":
        factors = _fit_diagonal(run, layers, empty)
    elif kind == "kfac":
        factors = _fit_kfac(run, layers, empty)
    else:
        factors = _fit_ekfac(run, layers, empty)
    if progress is not None:
        progress.remove()
    return factors


def _fit_kfac(run: "_Run", layers: Sequence[Layer], empty: Factors) -> Factors:
    moments = KfacPass(layers, run.mesh)
    tensors, cost = run.through("K-FAC", moments)
    return dataclasses.replace(empty, layers=tuple(moments.factors()), tensors=tensors, cost=cost)


def _fit_diagonal(run: "_Run", layers: Sequence[Layer], empty: Factors) -> Factors:
    """Take the bias back out of the matrix of its layer: a diagonal has one block per parameter."""
    found, cost = run.through("Fisher diagonal", EigenvaluePass(layers, {}, run.mesh))
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


def _fit_ekfac(run: "_Run", layers: Sequence[Layer], empty: Factors) -> Factors:
    stage = "EK-FAC eigenvalues"
    found = run.bases_for(stage)
    if found is None:
        kfac = _fit_kfac(run, layers, empty)
        with counting() as counter:
            found = _eigenbases(kfac, run)
        flops = sum(run.mesh.world.all_gather_object(counter.flops))
        found = dataclasses.replace(found, cost=kfac.cost + Cost(flops=flops))
        run.keep_bases(stage, found)
    bases = {
        of.layer: Basis(_on(found, of, "rows", run.device), _on(found, of, "columns", run.device))
        for of in found.layers
        if "columns" in of.tensors
    }
    matrices = [layer for layer in layers if layer.kind != "elementwise"]
    corrected, cost = run.through(stage, EigenvaluePass(matrices, bases, run.mesh))
    factors = [
        dataclasses.replace(of, tensors={**of.tensors, "eigenvalues": f"{of.layer}/eigenvalues"})
        if of.layer in bases
        else of
        for of in found.layers
    ]
    mine = set(found.names_for(run.mesh.world))
    kept = {name for of in found.layers if of.layer in mine for name in of.tensors.values()}
    tensors = {**{name: values for name, values in found.tensors.items() if name in kept}, **corrected}
    return dataclasses.replace(empty, layers=tuple(factors), tensors=tensors, cost=found.cost + cost)


def _eigenbases(kfac: Factors, run: "_Run") -> Factors:
    """Replace Kronecker factors by their eigenvectors; diagonals stay as they are.

    Each process decomposes its share; then all have the eigenvectors of every layer, to rotate their sequences by.
    """
    process_group = run.mesh.world
    kfac = dataclasses.replace(kfac, tensors=process_group.all_gather(kfac.tensors))
    decompositions, mine = Decompositions(kfac, run.device), set(kfac.names_for(process_group))
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
    """Name the tensors that take the place of a layer's moments."""
    if "eigenvalues" in of.tensors:
        return dict(of.tensors)
    if of.kind != "kronecker":
        return {"columns": f"{of.layer}/columns"}
    # layers that share an input share its eigenvectors
    return {"columns": f"{of.tensors['input'].removesuffix('/input')}/columns", "rows": f"{of.layer}/rows"}


def _on(factors: Factors, of: LayerFactors, role: str, device: torch.device) -> Tensor | None:
    return factors.tensors[of.tensors[role]].to(device) if role in of.tensors else None


@dataclasses.dataclass(frozen=True)
class _Run:
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

    def bases_for(self, stage: str) -> Factors | None:
        """Return what the pass before this stage found, if that was kept."""
        begun = self.progress is not None and self.progress.load(stage) is not None
        return Factors.load(self.progress.bases) if begun and self.progress is not None else None

    def keep_bases(self, stage: str, bases: Factors) -> None:
        """Keep what a pass found; only then does the progress say that this stage has begun."""
        if self.progress is not None:
            bases.save(self.progress.bases)
            self.progress.save(stage, {"done": 0}, {})

    def through(self, stage: str, moments: Pass) -> tuple[dict[str, Tensor], Cost]:
        """Go through the text once and return the moments of its tokens by name, and what that took."""
        generator = torch.Generator().manual_seed(self.seed)
        done, counter = self._restore(stage, moments, generator)
        taps = Taps(self.model, moments.tapped, moments.head, moments.receive)
        with evaluation_mode(self.model), taps.attached(), progress_bar(stage, self.tokens, "tok") as bar:
            for index, batch in enumerate(self.batches):
                if index >= done and batch.loss_tokens:
                    mine = rows_for(self.mesh.world, batch)
                    uniform_N = draw_uniform(batch.loss_tokens, generator)
                    with counter.batch(mine):
                        self._add_batch(mine, moments, taps, uniform_N[tokens_for(self.mesh.world, batch)])
                bar.update(batch.loss_tokens)
                if index >= done and self.progress is not None and self.progress.due:
                    notes = {"done": index + 1, "moments": moments.notes(), "counted": counter.to_dict()}
                    self.progress.save(stage, notes, moments.sums() | {"generator": generator.get_state()})
        return moments.finish(self.tokens), sum(self.mesh.world.all_gather_object(counter.cost), NO_COST)

    def _restore(self, stage: str, moments: Pass, generator: torch.Generator) -> tuple[int, ShapeCounter]:
        """Return how many batches are done, and what they took."""
        saved = self.progress.load(stage) if self.progress is not None else None
        if saved is None or saved[0]["done"] == 0:
            return 0, ShapeCounter()
        notes, tensors = saved
        generator.set_state(tensors.pop("generator"))
        moments.prepare(notes["moments"])
        for name, values in moments.sums().items():
            values.copy_(tensors[name])
        return int(notes["done"]), ShapeCounter.of_dict(notes["counted"])

    def _add_batch(self, batch: TokenBatch, moments: Pass, taps: Taps, uniform_N: Tensor) -> None:
        at = Positions.of(batch, self.device)
        with taps.batch(at), torch.enable_grad():
            tokens_BS = torch.from_numpy(batch.tokens_BS).to(self.device)
            logits_BPV = next_token_logits(self.model, tokens_BS)
            logits_NV = at.rows(logits_BPV, "logits")
            probability_NV = logits_NV.detach().softmax(dim=1)
            expected = self.fisher == "true"
            labels_N = sample_labels(probability_NV, uniform_N) if expected else tokens_BS[:, 1:][at.carries_BP]
            head = None
            if moments.head is not None:
                call = taps.head_call()
                head = HeadBatch.of(call, logits_BPV, probability_NV, labels_N, at=at, expected=expected)
            moments.end_forward(taps.calls, at)
            taps.backward(logits_NV, cross_entropy_gradient(probability_NV, labels_N))
            moments.end_batch(head, at)
