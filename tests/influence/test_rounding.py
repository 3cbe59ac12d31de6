import torch

from tikmix_pipeline.influence.rounding import generator_of, to_bfloat16


def rounded(values: torch.Tensor, identity: str = "one") -> torch.Tensor:
    return to_bfloat16(values, generator_of(identity))


def test_every_value_becomes_one_of_its_two_neighbours():
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    found = rounded(values)
    assert found.dtype == torch.bfloat16
    below = (values.view(torch.int32) & ~0xFFFF).view(torch.float32)
    above = ((values.view(torch.int32) & ~0xFFFF) + 0x10000).view(torch.float32)
    assert ((found.float() == below) | (found.float() == above)).all()
    assert 0.3 < (found.float() == above).float().mean() < 0.7


def test_mean_of_many_roundings_is_the_value():
    values = torch.tensor([1.001, -3.1415926, 1e-20, 12345.678])
    mean = torch.stack([rounded(values, str(number)).double() for number in range(4000)]).mean(0)
    # the error of one is below 2^-7 of the value, and that of the mean of 4000 some 60 times smaller
    torch.testing.assert_close(mean, values.double(), rtol=5e-4, atol=0)
    nearest = values.to(torch.bfloat16).double()
    assert ((nearest - values.double()).abs() > (mean - values.double()).abs()).all()


def test_what_bfloat16_holds_stays_as_it_is():
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**100])
    assert (rounded(values).float() == values).all()


def test_equal_identities_round_alike_and_others_do_not():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert (rounded(values) == rounded(values)).all()
    assert (rounded(values, "two") != rounded(values)).any()


def test_shape_and_order_are_kept_and_the_input_is_not_changed():
    values = torch.arange(24.0).reshape(2, 3, 4).mT
    before = values.clone()
    assert (rounded(values).float() == values).all()
    assert (values == before).all()
