"""The Fisher of a model at a checkpoint, from one or two passes over text.

| kind | passes | |
|---|---|---|
| kfac | 1 | Kronecker factors: `kfac` |
| diagonal | 1 | eigenvalues in the standard basis: `eigenvalues` |
| ekfac | 2 | Kronecker factors, then eigenvalues in the basis of K-FAC with the same labels |

The model's `.grad`, `requires_grad`, hooks and training mode are left as they were. The result does not depend on how
the sequences are cut into batches, nor on how many processes share each batch, nor on whether gradients are measured on
the way.
"""

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.collect import Collection
from tikmix_pipeline.influence.curvature.eigenvalues import Basis, EigenvaluePass
from tikmix_pipeline.influence.curvature.factors import Factors, Kind, Labels, LayerFactors
from tikmix_pipeline.influence.curvature.fit_pass import FitText
from tikmix_pipeline.influence.curvature.fit_progress import FitProgress
from tikmix_pipeline.influence.curvature.kfac import KfacPass
from tikmix_pipeline.influence.curvature.kronecker import Decompositions, require_finite
from tikmix_pipeline.influence.curvature.layers import Layer, Layout, find_layers
from tikmix_pipeline.lm.cost import FlopCounter
from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.parameters.measurement import Group
from tikmix_pipeline.store.keyed import key_of

_EIGENVALUES = "EK-FAC eigenvalues"
"""The second pass of EK-FAC, in the progress bar and on disk."""


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
    collection: Collection | None = None,
) -> Factors:
    """Fit the Fisher to a model on training text.

    Args:
        model: the checkpoint, on the device to work on. Sums are in float32 whatever lower precision it has.
        batches: windows of text of all domains (`samples.MeasuredText.factor_batches`).
        kind: how the Fisher is approximated.
        fisher: labels sampled from the model (`true`), or those of the text (`empirical`).
        seed: decides the sampled labels.
        groups: kinds of parameters that take part.
        progress: where to keep what is summed so far; a fit that finds its own goes on from there, to the same bits. It
            is for a fit by one process: several begin again.
        mesh: the processes that fit together; each calls this, and returns the tensors that it owns.
        collection: gradients of this text to measure on the way, by one process; those that are there are left alone.

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
        if collection is not None:  # which decides the order of the text
            settings += f" {key_of([chunk.identity for chunk in collection.chunks])}"
        progress = dataclasses.replace(progress, key=f"{progress.key} {settings}")
    fit = FitText(model, batches, fisher, seed, progress, mesh, collection)
    fit_kind = {"diagonal": _fit_diagonal, "kfac": _fit_kfac, "ekfac": _fit_ekfac}[kind]
    factors = fit_kind(fit, layers, Factors(kind, fisher, seed, tokens, tuple(groups), (), {}))
    for layer in factors.layers:
        for name in layer.tensors.values():
            if name in factors.tensors:  # of ranks each has its own
                require_finite(factors.tensors[name], layer.layer)
    if progress is not None:
        progress.remove()
    return factors


def _fit_kfac(fit: FitText, layers: Sequence[Layer], empty: Factors) -> Factors:
    kfac = KfacPass(layers, fit.mesh)
    tensors, cost = fit.through("K-FAC", kfac)
    return dataclasses.replace(empty, layers=tuple(kfac.factors()), tensors=tensors, cost=cost)


def _fit_diagonal(fit: FitText, layers: Sequence[Layer], empty: Factors) -> Factors:
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


def _fit_ekfac(fit: FitText, layers: Sequence[Layer], empty: Factors) -> Factors:
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
    corrected, cost = fit.through(_EIGENVALUES, EigenvaluePass(matrices, bases, fit.mesh), collects=False)
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


def _eigenbases(kfac: Factors, fit: FitText) -> Factors:
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
