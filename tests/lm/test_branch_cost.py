"""What branches took: training of all that ran to an end, scoring of those that came through."""

import numpy as np
from lm_examples import MODEL

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.lm.branch_pool import Branch, BranchResult, Failure, cost_of_branches
from tikmix_pipeline.lm.cost import scoring_cost, training_cost
from tikmix_pipeline.lm.cost_records import NO_COST
from tikmix_pipeline.lm.evaluation import TextLoss

BRANCH = Branch("a", {"code": 1.0})
WHOLE = BranchResult(BRANCH, {"quiz": TextLoss(1.0, 1)})
DIVERGED = BranchResult(BRANCH, {}, Failure("diverged", "the loss is nan"))
LOST = BranchResult(BRANCH, {}, Failure("memory", "none left"))


def padded() -> TokenBatch:
    """Two sequences of 8 positions, the first with 4 of padding."""
    last_B = np.array([[4], [8]])
    positions_S = np.arange(9)
    return TokenBatch(np.ones((2, 9), dtype=np.int64), (positions_S > 0) & (positions_S <= last_B))


def test_branches_that_diverged_are_trained_and_those_lost_to_memory_are_not(start, setting):
    cost = cost_of_branches(setting, [WHOLE, DIVERGED, LOST], {})
    assert cost.trained == 2
    assert cost.training == training_cost(start.model(MODEL).config, context=16, tokens=2 * 2 * 64)
    assert cost.scoring == NO_COST


def test_only_branches_that_came_through_are_scored_without_counting_padding_as_tokens(start, setting):
    cost = cost_of_branches(setting, [WHOLE, WHOLE, DIVERGED, LOST], {"quiz": [padded()], "riddle": [padded()]})
    config = start.model(MODEL).config
    assert cost.scoring.tokens == 2 * 2 * (4 + 8)
    # the operations are those of sequences of 8, not of `train.context`, and the padding's are done as well
    assert cost.scoring.flops == scoring_cost(config, context=8, tokens=2 * 2 * 16).flops
