import math

import pytest

from tikmix_pipeline.lm.divergence import DivergedError, is_worse_than_guessing, require_better_than_guessing


def test_a_model_that_knows_nothing_has_not_diverged():
    assert not is_worse_than_guessing([math.log(1000)] * 3, 1000)
    require_better_than_guessing([math.log(1000) + 0.05], 1000, of="text")


def test_one_text_worse_than_guessing_is_no_divergence_where_all_together_are_better():
    require_better_than_guessing([2.0, 2.0, 9.0], 1000, of="text")


@pytest.mark.parametrize("losses", [[8.0, 8.0], [2.0, 3806.0], [math.nan], [2.0, math.inf]])
def test_a_mean_loss_worse_than_guessing_or_not_finite_is_refused(losses):
    with pytest.raises(DivergedError, match=r"mean loss on the tasks is .*1000 token ids has 6\.908.*learning_rate"):
        require_better_than_guessing(losses, 1000, of="the tasks")


def test_nothing_scored_is_no_divergence():
    require_better_than_guessing([], 1000, of="text")
