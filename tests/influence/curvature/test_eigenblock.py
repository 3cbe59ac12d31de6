import pytest
import torch

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.eigenblock import (
    BlockDiagonalCurvature,
    EigenBlock,
    Layout,
    damped_inverse,
    eigenbasis,
)


@pytest.mark.parametrize(
    "layout", [Layout("w"), Layout("w", "b"), Layout("w", transposed=True), Layout("w", "b", True)]
)
def test_scatter_undoes_gather(layout):
    gradient = {"w": torch.randn(3, 5), "b": torch.randn(5 if layout.transposed else 3)}
    restored = layout.scatter(layout.gather(gradient))
    assert set(restored) == set(layout.names)
    assert all((restored[name] == gradient[name]).all() for name in layout.names)


def test_any_function_of_the_eigenvalues_is_applied_in_the_eigenbasis():
    """The square root applied twice is the block itself."""
    generator = torch.Generator().manual_seed(0)
    g, a = (torch.randn(n, n, generator=generator).double() for n in (3, 4))
    (g_values, g_vectors), (a_values, a_vectors) = eigenbasis(g @ g.T, "x"), eigenbasis(a @ a.T, "x")
    block = EigenBlock(Layout("w"), "kronecker", torch.outer(g_values, a_values), g_vectors, a_vectors)
    gradient = {"w": torch.randn(3, 4, generator=generator).double()}
    twice = block.apply(block.apply(gradient, torch.sqrt), torch.sqrt)
    torch.testing.assert_close(twice["w"], g @ g.T @ gradient["w"] @ a @ a.T)


def test_eigenvalues_are_never_negative_and_never_changed():
    moment = torch.tensor([[1.0, 1.0], [1.0, 1.0 - 1e-9]]).double()
    eigenvalues, _ = eigenbasis(moment, "x")
    assert (eigenvalues >= 0).all()
    block = EigenBlock(Layout("w"), "diagonal", torch.tensor([1.0, 2.0]))
    curvature = BlockDiagonalCurvature("kfac", [block], damping=1.0)
    for _ in range(3):
        torch.testing.assert_close(curvature.precondition({"w": torch.ones(2)})["w"], torch.tensor([1 / 2.5, 1 / 3.5]))
    assert block.eigenvalues_oi.tolist() == [1.0, 2.0]


def test_no_curvature_and_no_damping_gives_zero_instead_of_infinity():
    assert damped_inverse(torch.zeros(3), 0.0).tolist() == [0, 0, 0]


def test_report_gives_shares_by_kind_and_damping_in_the_unit_of_the_block():
    blocks = [
        EigenBlock(Layout("w"), "kronecker", torch.full((2, 3), 4.0)),
        EigenBlock(Layout("n"), "diagonal", torch.ones(2)),
    ]
    report = BlockDiagonalCurvature("kfac", blocks, damping=0.1).report
    assert report.coverage() == {"kronecker": 0.75, "diagonal": 0.25}
    assert [(block.mean_eigenvalue, block.damping) for block in report.blocks] == [(4.0, 0.4), (1.0, 0.1)]


def test_moment_that_is_not_finite_names_its_layer():
    with pytest.raises(TikmixError, match=r"curvature of mlp\.up is not finite"):
        eigenbasis(torch.full((2, 2), float("nan")), "mlp.up")
