import math

import pytest
import torch

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.spectrum import FUNCTIONS, UNDAMPED, Damping, DampingFunction, damped, horizon

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
