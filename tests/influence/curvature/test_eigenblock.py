import math

import pytest
import torch

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.eigenblock import (
    FUNCTIONS,
    UNDAMPED,
    Damping,
    DampingFunction,
    EigenBlock,
    damped,
    horizon,
)
from tikmix_pipeline.influence.curvature.kronecker import eigenbasis
from tikmix_pipeline.influence.curvature.layers import Layout

LAYOUTS = [Layout("w"), Layout("w", "b"), Layout("w", transposed=True), Layout("w", "b", True)]


def moment(size: int, seed: int) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double()
    return root @ root.T


def kronecker_block(layout: Layout, rows: int = 3, columns: int = 4, **options) -> EigenBlock:
    (g_values, g_vectors), (a_values, a_vectors) = eigenbasis(moment(rows, 0), "x"), eigenbasis(moment(columns, 1), "x")
    return EigenBlock(layout, "kronecker", torch.outer(g_values, a_values), g_vectors, a_vectors, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scatter_undoes_gather(layout):
    rows = {"w": torch.randn(2, 3, 5), "b": torch.randn(2, 5 if layout.transposed else 3)}
    restored = layout.scatter(layout.gather(rows))
    assert set(restored) == set(layout.names)
    assert all((restored[name] == rows[name]).all() for name in layout.names)


def test_function_is_applied_in_the_eigenbasis():
    """Two square roots are the block itself."""
    block = kronecker_block(Layout("w"), damping_function=DampingFunction(lambda values, _: values.sqrt(), 1.0))
    rows = {"w": torch.randn(5, 3, 4).double()}
    twice = block.precondition(block.precondition(rows))
    torch.testing.assert_close(twice["w"], moment(3, 0) @ rows["w"] @ moment(4, 1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_rows_are_preconditioned_as_one_by_one_and_left_as_they_were(layout):
    columns = 4 if layout.bias is None else 5
    block = kronecker_block(layout, 3, columns, damping_function=DampingFunction(damped, 0.3))
    rows = {"w": torch.randn(6, *((4, 3) if layout.transposed else (3, 4))).double(), "b": torch.randn(6, 3).double()}
    before = {name: values.clone() for name, values in rows.items()}
    together = block.precondition(rows)
    assert list(together) == list(layout.names)
    for row in range(6):
        alone = block.precondition({name: values[[row]] for name, values in rows.items()})
        for name in layout.names:
            torch.testing.assert_close(together[name][row], alone[name][0])
    assert all((rows[name] == before[name]).all() for name in rows)


def test_rows_keep_their_precision():
    block = kronecker_block(Layout("w"), damping_function=DampingFunction(damped, 0.3))
    rows = {"w": torch.randn(2, 3, 4)}
    single, double = block.precondition(rows)["w"], block.precondition({"w": rows["w"].double()})["w"]
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_eigenvalues_are_never_negative_and_never_changed():
    eigenvalues, _ = eigenbasis(torch.tensor([[1.0, 1.0], [1.0, 1.0 - 1e-9]]).double(), "x")
    assert (eigenvalues >= 0).all()
    block = EigenBlock(Layout("w"), "diagonal", torch.tensor([1.0, 2.0]), damping_function=DampingFunction(damped, 1.5))
    for _ in range(3):
        torch.testing.assert_close(
            block.precondition({"w": torch.ones(1, 2)})["w"][0], torch.tensor([1 / 2.5, 1 / 3.5])
        )
    assert block.eigenvalues_oi.tolist() == [1.0, 2.0]


def split_blocks() -> list[EigenBlock]:
    _, columns = eigenbasis(moment(4, 1), "x")
    options = {"damping_function": DampingFunction(damped, 0.3)}
    return [
        EigenBlock(Layout("w"), "embedding", torch.rand(7, 4).double(), columns_ii=columns, **options),
        EigenBlock(Layout("w", "b"), "head", torch.rand(7, 4).double(), columns_ii=columns, **options),
        EigenBlock(Layout("w"), "diagonal", torch.rand(7, 3, 2).double(), **options),
        EigenBlock(Layout("w"), "diagonal", torch.rand(7).double(), **options),
        EigenBlock(Layout("w"), "identity", torch.ones(()).expand(7, 3)),
    ]


@pytest.mark.parametrize("block", split_blocks(), ids=lambda block: f"{block.kind}{block.eigenvalues_oi.ndim}")
@pytest.mark.parametrize("rows_at_once", [1, 2, 3])
def test_pieces_cover_the_block_once_and_give_what_it_gives(block, rows_at_once):
    shape = block.eigenvalues_oi.shape if block.layout.bias is None else torch.Size([7, 3])
    rows = {"w": torch.randn(2, *shape).double(), "b": torch.randn(2, 7).double()}
    pieces = block.pieces(rows_at_once * block.size // 7)
    assert [piece.span for piece in pieces] == [(s, min(s + rows_at_once, 7)) for s in range(0, 7, rows_at_once)]
    assert sum(piece.size for piece in pieces) == block.size
    whole = block.precondition(rows)
    for piece in pieces:
        start, stop = piece.span
        found = piece.precondition({name: values[:, start:stop] for name, values in rows.items()})
        for name in block.names:
            torch.testing.assert_close(found[name], whole[name][:, start:stop], rtol=1e-12, atol=1e-14)


def test_a_piece_of_a_piece_knows_its_place():
    _, second = split_blocks()[0].pieces(16)
    assert [piece.span for piece in second.pieces(8)] == [(4, 6), (6, 7)]


def test_what_cannot_or_need_not_be_split_is_returned_whole():
    dense, diagonal = kronecker_block(Layout("w")), split_blocks()[0]
    assert dense.pieces(1) == [dense]
    assert diagonal.pieces(28) == [diagonal]
    scalar = EigenBlock(Layout("w"), "diagonal", torch.tensor(2.0), damping_function=DampingFunction(damped, 2.0))
    assert scalar.pieces(0) == [scalar]
    assert scalar.precondition({"w": torch.tensor([4.0, 8.0])})["w"].tolist() == [1, 2]
    assert [piece.size for piece in diagonal.pieces(1)] == [4] * 7


def test_moment_that_is_not_finite_names_its_layer():
    with pytest.raises(TikmixError, match=r"curvature of mlp\.up is not finite"):
        eigenbasis(torch.full((2, 2), float("nan")), "mlp.up")


EIGENVALUES = torch.cat([torch.zeros(1), torch.logspace(-300, 20, 200, dtype=torch.float64)])


def exact_horizon(eigenvalue: float, scale: float) -> float:
    """The series where it converges fast, the formula elsewhere."""
    ratio = eigenvalue / scale
    if ratio < 1e-3:
        return sum((-ratio) ** k / math.factorial(k + 1) for k in range(6)) / scale
    return (1 - math.exp(-ratio)) / eigenvalue


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_horizon_is_accurate_for_every_ratio(scale):
    expected = torch.tensor([exact_horizon(float(value), scale) for value in EIGENVALUES], dtype=torch.float64)
    torch.testing.assert_close(horizon(EIGENVALUES, scale), expected, rtol=1e-12, atol=0)


def test_horizon_is_gradient_flow_on_a_quadratic():
    """θ' = −(μθ − 1) from 0 for the time 1/λ, in small steps."""
    for eigenvalue, scale in [(0.0, 2.0), (0.7, 0.5), (3.0, 0.1)]:
        weight, steps = 0.0, 100_000
        for _ in range(steps):
            weight += (1 - eigenvalue * weight) / (scale * steps)
        assert weight == pytest.approx(float(horizon(torch.tensor([eigenvalue]).double(), scale)), rel=1e-3)


@pytest.mark.parametrize("function", FUNCTIONS.values())
def test_large_scale_gives_the_plain_gradient_and_small_scale_the_inverse(function):
    eigenvalues = torch.tensor([0.0, 1e-6, 1.0, 1e3]).double()
    torch.testing.assert_close(1e12 * function(eigenvalues, 1e12), torch.ones(4).double(), rtol=1e-8, atol=0)
    torch.testing.assert_close(function(eigenvalues[1:], 1e-20), 1 / eigenvalues[1:], rtol=1e-12, atol=0)
    assert (function(EIGENVALUES, 1.0).diff() <= 0).all()


def test_functions_are_bounded_by_both_of_their_limits():
    assert (horizon(EIGENVALUES, 0.5) <= 2).all()
    assert (damped(EIGENVALUES, 0.5) <= horizon(EIGENVALUES, 0.5) * (1 + 1e-12)).all()


def test_no_curvature_and_no_scale_gives_zero_instead_of_infinity():
    for function in FUNCTIONS.values():
        assert DampingFunction(function, 0.0)(torch.zeros(3)).tolist() == [0, 0, 0]


def test_multiplier_is_taken_in_float64_and_the_identity_ignores_eigenvalues():
    single = torch.tensor([1e-20, 3.0])
    assert DampingFunction(damped, 1e-25)(single).dtype == torch.float64
    assert DampingFunction(damped, 1e-25)(single)[0] == pytest.approx(1e20, rel=1e-4)
    assert UNDAMPED(single).tolist() == [1, 1]


def test_scale_in_each_unit():
    assert Damping(0.1, "relative", None).scale(4.0) == pytest.approx(0.4)
    assert Damping(0.1, "absolute", None).scale(4.0) == 0.1
    assert Damping(0.5, "horizon", 2.5).scale(4.0) == pytest.approx(0.2)


@pytest.mark.parametrize("missing", [None, 0.0])
def test_horizon_unit_without_a_chunk_to_come_says_so(missing):
    with pytest.raises(TikmixError, match=r"damping_unit=horizon.*no chunk to come\. Use .*relative or absolute"):
        Damping(1.0, "horizon", missing)
