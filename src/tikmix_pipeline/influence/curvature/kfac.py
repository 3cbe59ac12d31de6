"""K-FAC: the per-token Fisher, in Kronecker-factored blocks that cover every trainable parameter.

    F = (1/N) Σ_n E_{y ~ p(·|context_n)} [∇ log p(y) ∇ log p(y)ᵀ]

over the N loss-carrying tokens of the fit, which is the Gauss-Newton matrix of the *mean* loss per token: the same unit
as the mean gradients. Labels are sampled from the model's own predictions with a seed (the true Fisher; with the data's
labels it would be the empirical one). The block of each layer:

| layer | block | |
|---|---|---|
| linear, W_oi | G ⊗ A | A = E[a aᵀ] of inputs (and a 1 for the bias), G = E[g gᵀ] of pre-activation gradients |
| embedding, W_vi | diag(f) ⊗ G | f = frequency of the input token: a one-hot input makes A diagonal |
| output head, W_vi | diag(d) ⊗ A | d = E[p ∘ (1 − p)], exact over labels; the off-diagonal E[−p_u p_v] is left out |
| tied embedding and head, W_vi | diag(c) ⊗ B | the Kronecker product nearest to the sum of the two above |
| elementwise (norms) | diagonal | exact gradient of each sequence, squared: see `statistics.ElementwiseMoments` |

Expectations are over positions whose next token carries loss; products of gradients at different positions are left
out (the expand setting of Eschenhagen et al. 2023). A vocabulary costs V here, never V². Damping is relative to each
block's mean eigenvalue, tr(A) tr(G) / (o·i).

Cost: forward passes and backward passes without weight gradients over the tokens of the fit, one product of size N·n²
per factor, and float64 eigendecompositions. Memory: two n² matrices per factor, and one eigenvalue per parameter.
References: Martens and Grosse 2015 (1503.05671); Grosse et al. 2023 (2308.03296) for its use in influence.

Axes: B sequences, S tokens, P = S - 1 positions, N loss-carrying positions, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.eigenblock import BlockDiagonalCurvature, EigenBlock, Layout, eigenbasis
from tikmix_pipeline.influence.curvature.layers import Layer, find_layers
from tikmix_pipeline.influence.curvature.nearest_kronecker import nearest_kronecker
from tikmix_pipeline.influence.curvature.statistics import Positions
from tikmix_pipeline.influence.curvature.taps import Taps
from tikmix_pipeline.influence.gradients import evaluation_mode
from tikmix_pipeline.lm.loss import device_of, next_token_logits
from tikmix_pipeline.progress import progress_bar


def fit_kfac(model: nn.Module, batches: Sequence[TokenBatch], *, damping: float, seed: int) -> BlockDiagonalCurvature:
    """Fit K-FAC to a model on training text.

    The model's `.grad`, `requires_grad`, hooks and training mode are left as they were. The result does not depend on
    how the sequences are cut into batches.

    Args:
        model: the checkpoint, with float32 (or float64) weights, on the device to work on.
        batches: windows of text, spread evenly over domains (`parts.take_evenly`).
        damping: λ as a multiple of the mean eigenvalue of each block.
        seed: decides the sampled labels.

    Raises:
        TikmixError: a trainable parameter belongs to no known kind of layer, the batches carry no loss, or the
            second moments are not finite.
    """
    layers = find_layers(model)
    tokens = sum(batch.loss_tokens for batch in batches)
    if tokens == 0:
        raise TikmixError("There is no text to fit the curvature on. Raise influence.factor_tokens.")
    generator = torch.Generator().manual_seed(seed)
    taps = Taps(model, layers)
    with evaluation_mode(model), taps.attached(), progress_bar("K-FAC", tokens, "tok") as bar:
        for batch in batches:
            if batch.loss_tokens:
                _add_batch(model, batch, taps, generator)
                bar.update(batch.loss_tokens)
    blocks = [block for layer in layers for block in _blocks(layer, taps, tokens)]
    return BlockDiagonalCurvature("kfac", blocks, damping=damping)


def sample_labels(probability_NV: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one label per row by inverting its cumulative distribution.

    One uniform number per row, drawn on the CPU in row order, makes the labels independent of the batch size and of
    the device.
    """
    uniform_N = torch.rand(len(probability_NV), generator=generator, dtype=torch.float64).to(probability_NV)
    cumulative_NV = probability_NV.cumsum(dim=1)
    thresholds_N1 = (uniform_N * cumulative_NV[:, -1])[:, None]
    labels_N = torch.searchsorted(cumulative_NV, thresholds_N1, right=True)[:, 0]
    return labels_N.clamp(max=probability_NV.shape[1] - 1)


def _add_batch(model: nn.Module, batch: TokenBatch, taps: Taps, generator: torch.Generator) -> None:
    device = device_of(model)
    at = Positions.of(batch, device)
    with taps.batch(at), torch.enable_grad():
        logits_BPV = next_token_logits(model, torch.from_numpy(batch.tokens_BS).to(device))
        logits_NV = at.rows(logits_BPV, "logits")
        probability_NV = logits_NV.detach().softmax(dim=1)
        taps.add_head(logits_BPV, probability_NV)
        loss = F.cross_entropy(logits_NV, sample_labels(probability_NV, generator), reduction="sum")
        taps.backward(loss)


def _blocks(layer: Layer, taps: Taps, tokens: int) -> Iterator[EigenBlock]:
    names = layer.parameters
    if layer.kind == "elementwise":
        diagonals = taps.elementwise[layer.name].factors(tokens)
        yield from (EigenBlock(Layout(name), "diagonal", diagonals[key]) for key, name in names.items())
    elif layer.kind == "linear":
        layout = Layout(names["weight"], names.get("bias"), transposed=not isinstance(layer.module, nn.Linear))
        yield _dense_block(layout, taps.linear[layer.name].factors(tokens), layer)
    elif not layer.tied:
        moments = (taps.head if layer.kind == "head" else taps.embedding)[layer.name]
        layout = Layout(names["weight"], names.get("bias"))
        yield _row_diagonal_block(layout, layer.kind, moments.factors(tokens), layer)
    elif layer.kind == "embedding":
        (head,) = taps.head.values()
        factors = nearest_kronecker(taps.embedding[layer.name].factors(tokens), head.factors(tokens))
        yield _row_diagonal_block(Layout(names["weight"]), "tied embedding and head", factors, layer)


def _dense_block(layout: Layout, factors: tuple[Tensor, Tensor], layer: Layer) -> EigenBlock:
    """G ⊗ A in the precision of the weights."""
    output_values, output_vectors = eigenbasis(factors[0], layer.name)
    input_values, input_vectors = eigenbasis(factors[1], layer.name)
    weight = layer.module.get_parameter("weight")
    eigenvalues_oi = torch.outer(output_values, input_values).to(weight)
    return EigenBlock(layout, "kronecker", eigenvalues_oi, output_vectors.to(weight), input_vectors.to(weight))


def _row_diagonal_block(layout: Layout, kind: str, factors: tuple[Tensor, Tensor], layer: Layer) -> EigenBlock:
    """diag(v) ⊗ B in the precision of the weights."""
    values, vectors = eigenbasis(factors[1], layer.name)
    weight = layer.module.get_parameter("weight")
    eigenvalues = torch.outer(factors[0].double(), values).to(weight)
    return EigenBlock(layout, kind, eigenvalues, columns_ii=vectors.to(weight))
