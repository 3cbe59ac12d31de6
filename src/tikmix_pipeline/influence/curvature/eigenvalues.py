"""EK-FAC and the plain diagonal: the eigenvalues that come nearest to the Fisher in a given basis.

    Λ_oi = (1/N) Σ_b (Q_Gᵀ U_b Q_A)²_oi,        U_b = Σ_p g_bp a_bpᵀ

U_b is the gradient of sequence b's summed loss, exactly: over all its positions, also those that carry no loss but are
attended to. Sampled labels are independent and every score has mean zero, so cross terms between tokens vanish in
expectation and Λ estimates, per token and without bias, the Fisher's diagonal in the basis Q_G ⊗ Q_A; of all matrices
diagonal in that basis, the one nearest in Frobenius norm (George et al. 2018, 1806.03884). With the eigenvectors of
K-FAC and the labels that they were fitted with this is EK-FAC, never further from the sampled Fisher (1/N) Σ_b u_b u_bᵀ
than K-FAC is; without eigenvectors it is the Fisher's diagonal. With the labels of the text, Λ is of the empirical
Fisher of sequences, per token.

Embedding and head are left as they are on the token side, so a basis is of the width alone:

* embedding: row v of U_b sums the gradients at the positions that read token v;
* head: the expectation over labels is exact, Λ_vi = (1/N) Σ_n s² p_nv (1 − p_nv) (h_nᵀ q_i)². It costs what one more
  forward product of the head does, and a token that no sample hit still has its p where a sample has p²;
* tied: U_b sums both. The rows that the sequence reads are taken from the sampled U_b, since both terms are correlated
  there; every other row is the head's alone and again exact over labels;
* with the labels of the text there is no expectation: U_b is taken row block by row block.

Where K-FAC has equal eigenvalues its eigenvectors are arbitrary, and Λ with them: so in the null space of a factor that
was fitted on fewer tokens than it has rows. Fit on more tokens than the widest layer has outputs.

Cost: a forward and a backward pass without weight gradients, U_b for every sequence (N·o·i), and the cheaper of
rotating its two factors first or U_b afterwards. Memory: one Λ, and U_b of a few sequences at a time.

Axes: B sequences, P positions, N loss-carrying positions, n those of one sequence, o outputs, i inputs (and the bias),
V vocabulary, v some rows of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tikmix_pipeline.distributed.mesh import Mesh
from tikmix_pipeline.influence.curvature.fisher_pass import (
    ElementwiseDiagonal,
    FisherPass,
    LayerSums,
    OwnerRank,
    owners_of,
    with_bias,
)
from tikmix_pipeline.influence.curvature.head_batch import HeadBatch, HeadRows
from tikmix_pipeline.influence.curvature.hooks import Calls, Positions
from tikmix_pipeline.influence.curvature.layers import Layer

_WORKING_SCALARS = 1 << 24
"""Entries of the sequence gradients held at a time, if one alone has no more."""


@dataclass(frozen=True)
class Basis:
    """Eigenvectors of the output and of the input side as columns; None on a side that is taken as it is."""

    rows_oo: Tensor | None = None
    columns_ii: Tensor | None = None


class LinearEigenvalues(LayerSums):
    """N·Λ of a linear layer."""

    def __init__(self, layer: Layer, basis: Basis, owner: OwnerRank) -> None:
        super().__init__(layer, owner, {"eigenvalues": layer.matrix_shape})
        self._basis = basis

    def add(self, calls: Calls, at: Positions) -> None:
        """Add the layer's calls in one batch; their gradients are summed before they are squared."""
        for values in (values for call in calls for values in call):
            at.require_sequences(values, self.layer.name)
        inputs_BPi = torch.cat([with_bias(inputs.flatten(1, -2), self.layer) for inputs, _ in calls], dim=1)
        gradient_BPo = torch.cat([gradient.flatten(1, -2) for _, gradient in calls], dim=1)
        with self.adding("eigenvalues") as total_oi:
            total_oi.add_(_rotated_squares(gradient_BPo.to(self.dtype), inputs_BPi.to(self.dtype), self._basis))


def _rotated_squares(gradient_BPo: Tensor, inputs_BPi: Tensor, basis: Basis) -> Tensor:
    """Return Σ_b (Q_Gᵀ U_b Q_A)², each side rotated on whichever of factor and product is smaller."""
    positions, outputs, inputs = gradient_BPo.shape[1], gradient_BPo.shape[2], inputs_BPi.shape[2]
    rows_oo, columns_ii = basis.rows_oo, basis.columns_ii
    if rows_oo is not None and positions <= inputs:
        gradient_BPo, rows_oo = gradient_BPo @ rows_oo, None
    if columns_ii is not None and positions <= outputs:
        inputs_BPi, columns_ii = inputs_BPi @ columns_ii, None
    total_oi = gradient_BPo.new_zeros(outputs, inputs)
    at_once = max(1, _WORKING_SCALARS // (outputs * inputs))
    for g_bpo, a_bpi in zip(torch.split(gradient_BPo, at_once), torch.split(inputs_BPi, at_once), strict=True):
        rotated_boi = g_bpo.mT @ a_bpi
        if rows_oo is not None:
            rotated_boi = rows_oo.T @ rotated_boi
        if columns_ii is not None:
            rotated_boi = rotated_boi @ columns_ii
        total_oi += rotated_boi.square_().sum(0)
    return total_oi


class VocabularyEigenvalues(LayerSums):
    """N·Λ of an embedding, of a head, or of a weight that is both."""

    def __init__(self, layer: Layer, head: Layer | None, basis: Basis, owner: OwnerRank) -> None:
        """Take the embedding, or the head if it is not tied to it; and the head, if the weight is one."""
        super().__init__(layer, owner, {"eigenvalues": layer.matrix_shape})
        self._padding = layer.module.padding_idx if isinstance(layer.module, nn.Embedding) else None
        self._head = head
        self._basis = basis
        self._lookups: list[tuple[Tensor, Tensor]] = []

    def add(self, calls: Calls, at: Positions) -> None:
        """Keep what the embedding looked up, and the gradient of it, until the head's part is known."""
        for ids_BP, gradient_BPi in calls:
            self._lookups.append((ids_BP, self._rotate(at.require_sequences(gradient_BPi, self.layer.name))))

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add the batch."""
        with self.adding("eigenvalues") as total_Vi:
            if head is None or self._head is None:
                self._add_sequences(total_Vi, None, at, range(len(at.counts_B)), None)
            else:
                for sequences, rows in head.of_sequences(at.counts_B):
                    self._add_rows(total_Vi, rows, with_bias(rows.inputs_ni, self._head), at, sequences)
        self._lookups = []

    def _add_rows(self, total_Vi: Tensor, rows: HeadRows, inputs_ni: Tensor, at: Positions, sequences: range) -> None:
        hidden_ni = self._rotate(inputs_ni)
        average_nV = rows.squares().to(self.dtype) if rows.expected else None
        if self._lookups or average_nV is None:
            self._add_sequences(total_Vi, (rows.score().to(self.dtype), hidden_ni), at, sequences, average_nV)
        if average_nV is not None:
            total_Vi.addmm_(average_nV.T, hidden_ni.square())

    def _rotate(self, values: Tensor) -> Tensor:
        values = values.to(self.dtype)
        return values if self._basis.columns_ii is None else values @ self._basis.columns_ii

    def _add_sequences(
        self,
        total_Vi: Tensor,
        head: tuple[Tensor, Tensor] | None,
        at: Positions,
        sequences: range,
        average_NV: Tensor | None,
    ) -> None:
        """Square the gradient of each sequence, in the rows that it reads or, without an average for the rest, in all.

        `head` has score and rotated input of the head at the N positions of these sequences; `average_NV`, the squares
        of the score averaged over labels, is cleared in the rows that are done here.
        """
        vocabulary, width = total_Vi.shape
        at_once = max(1, _WORKING_SCALARS // width)
        stop = 0
        for sequence in sequences:
            mine, stop = slice(stop, stop + at.counts_B[sequence]), stop + at.counts_B[sequence]
            ids_P, gradient_Pi = self._looked_up(total_Vi, sequence, at.lengths_B[sequence])
            in_all = head is not None and average_NV is None
            rows_v = torch.arange(vocabulary, device=ids_P.device) if in_all else torch.unique(ids_P)
            if average_NV is not None:
                average_NV[mine].index_fill_(1, rows_v, 0)
            for some_v in torch.split(rows_v, at_once):
                total_vi = _sum_by_row(some_v, ids_P, gradient_Pi)
                if head is not None:
                    total_vi += head[0][mine, some_v].T @ head[1][mine]
                total_Vi.index_add_(0, some_v, total_vi.square_())

    def _looked_up(self, total_Vi: Tensor, sequence: int, length: int) -> tuple[Tensor, Tensor]:
        """Return tokens of one sequence over all lookups and their gradients, (P, i), padding left out."""
        no_ids, none_i = total_Vi.new_empty(0, dtype=torch.int64), total_Vi.new_empty(0, total_Vi.shape[1])
        ids_P = torch.cat([no_ids] + [ids_BP[sequence, :length] for ids_BP, _ in self._lookups])
        gradient_Pi = torch.cat([none_i] + [gradient_BPi[sequence, :length] for _, gradient_BPi in self._lookups])
        if self._padding is not None:
            # what nn.Embedding reads at its padding index gets no gradient, though it may be a token like any other
            gradient_Pi = gradient_Pi * ids_P.ne(self._padding)[:, None]
        return ids_P, gradient_Pi


def _sum_by_row(rows_v: Tensor, ids_P: Tensor, gradient_Pi: Tensor) -> Tensor:
    """Sum gradients by token for ascending tokens `rows_v`."""
    total_vi = gradient_Pi.new_zeros(len(rows_v), gradient_Pi.shape[1])
    if len(ids_P):
        slot_P = torch.searchsorted(rows_v, ids_P).clamp(max=len(rows_v) - 1)
        found_P = rows_v[slot_P] == ids_P
        total_vi.index_add_(0, slot_P[found_P], gradient_Pi[found_P])
    return total_vi


class EigenvaluePass(FisherPass):
    """The eigenvalues of all layers in given bases."""

    def __init__(self, layers: Sequence[Layer], bases: Mapping[str, Basis], mesh: Mesh) -> None:
        """Take the basis of each layer by name; where none is named it is the standard basis."""
        head = next((layer for layer in layers if layer.kind == "head"), None)
        owners = owners_of([layer.size for layer in layers], mesh.world)
        layer_sums: dict[str, LayerSums] = {}
        for layer, owner in zip(layers, owners, strict=True):
            basis = bases.get(layer.name, Basis())
            if layer.kind == "elementwise":
                layer_sums[layer.name] = ElementwiseDiagonal(layer, owner, mesh.full_tensor)
            elif layer.kind == "linear":
                layer_sums[layer.name] = LinearEigenvalues(layer, basis, owner)
            elif layer.kind == "embedding":
                layer_sums[layer.name] = VocabularyEigenvalues(layer, head if layer.tied else None, basis, owner)
            elif not layer.tied:
                layer_sums[layer.name] = VocabularyEigenvalues(layer, layer, basis, owner)
        super().__init__(layers, layer_sums)
