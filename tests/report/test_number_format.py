import math

import pytest

from tikmix_pipeline.report import number_format


def plain(text):
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (512, "512"),
        (999.6, "1 k"),
        (1200, "1.2 k"),
        (5.6e6, "5.6 M"),
        (34e9, "34 B"),
        (34.4e9, "34 B"),
        (999.96e9, "1 T"),
        (1.2e12, "1.2 T"),
        (10e9, "10 B"),
        (9.96e9, "10 B"),
        (-5.6e6, "−5.6 M"),
        (4.2e18, "4200 Q"),
        (math.inf, "no limit"),
        (math.nan, "not known"),
        (None, "not known"),
    ],
)
def test_large_counts_have_two_digits_and_a_unit(count, text):
    assert plain(number_format.abbreviated(count)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123, "12.3 %"),
        (0.0, "0.0 %"),
        (0.0004, "< 0.1 %"),
        (0.0006, "0.1 %"),
        (1.0, "100.0 %"),
        (-0.02, "−2.0 %"),
        (None, "not known"),
        (math.nan, "not known"),
    ],
)
def test_shares_are_per_cent_and_nothing_rounds_to_none(value, text):
    assert plain(number_format.share(value)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.12, "12 %"), (0.099, "9.9 %"), (0.0996, "10 %"), (0.034, "3.4 %"), (0.0001, "< 0.1 %")]
)
def test_shares_in_a_sentence_are_short(value, text):
    assert plain(number_format.brief_share(value)) == text


@pytest.mark.parametrize(("change", "text"), [(0.031, "+3.1"), (-0.004, "−0.4"), (-0.0001, "0.0"), (0.0, "0.0")])
def test_changes_have_a_sign_unless_they_round_to_nothing(change, text):
    assert number_format.percentage_points(change) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (0.0121, 0.0038, "0.012 ± 0.004"),
        (0.0121, 0.0013, "0.0121 ± 0.0013"),
        (0.0121, 0.00096, "0.012 ± 0.001"),
        (-0.0121, 0.0038, "−0.012 ± 0.004"),
        (-0.0001, 0.0038, "0.000 ± 0.004"),
        (0.0121, None, "0.012"),
        (0.0121, math.nan, "0.012"),
        (0.0121, 0.0, "0.012 ± 0.000"),
        (0.0, 0.0, "0.00 ± 0.00"),
        (15.2, 3.1, "15 ± 3"),
        (math.nan, 0.1, "not known"),
    ],
)
def test_figures_have_the_digits_that_their_error_leaves(value, stderr, text):
    assert plain(number_format.with_error(value, stderr)) == text


@pytest.mark.parametrize(
    ("values", "power"), [([0.012, -0.3], 0), ([0.001], 0), ([1.2e-5, math.nan], -6), ([9e-4], -6), ([], 0), ([0.0], 0)]
)
def test_small_figures_share_a_power_of_ten(values, power):
    assert number_format.shared_power(values) == power


def test_the_power_is_said_by_the_unit():
    assert plain(number_format.with_error(12.1e-6, 3.8e-6, -6)) == "12 ± 4"
    assert plain(number_format.gain_unit("nats", -6)) == "× 10⁻⁶ nats per token"
    assert number_format.gain_unit("nats") == "nats per token"
    assert plain(number_format.in_unit("12", "nats", -6)) == "12 × 10⁻⁶ nats per token"
    assert number_format.in_unit("0.3", "share") == "0.3 (share of the best possible)"


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (3.2e21, "3.2 × 10²¹"),
        (9.99e20, "1.0 × 10²¹"),
        (512, "512"),
        (0, "0"),
        (None, "not known"),
        (math.nan, "not known"),
    ],
)
def test_operations_are_powers_of_ten(flops, text):
    assert plain(number_format.operations(flops)) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0.031, "0.03"), (0.78, "0.78"), (2.44, "2.4"), (4.0, "4"), (12.3, "12"), (0.001, "0"), (math.nan, "not known")],
)
def test_times_read_are_short(count, text):
    assert number_format.times(count) == text


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_names_are_joined_as_in_a_sentence(names, text):
    assert number_format.listed(names) == text
