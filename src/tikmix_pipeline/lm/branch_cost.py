"""What the branches of a pool cost, whoever asked for them: one count, so that methods can be held against each other.

It stands apart from `branch_pool`: how a branch is counted changes none of its bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tikmix_pipeline.lm.branch_pool import BranchResult, BranchSetting, Texts
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.cost import Cost, SequenceFlops
from tikmix_pipeline.lm.model import resolve_device


@dataclass(frozen=True)
class BranchCost:
    """What branches took, whenever they were trained.

    Attributes:
        trained: how many there are; those that ran out of memory are left out.
        training: of all of these. One that diverged counts in full, since where it stopped is not known.
        scoring: of those that came through, on all texts; tokens are without padding, operations with it.
    """

    trained: int
    training: Cost
    scoring: Cost


def cost_of_branches(setting: BranchSetting, results: Sequence[BranchResult], texts: Texts) -> BranchCost:
    """Count what `run_branches` has done, or an earlier call of it.

    Args:
        setting: what the branches have in common.
        results: what became of them.
        texts: what they were scored on.
    """
    train = setting.train
    network = Checkpoint(setting.checkpoint).model(setting.model).to(resolve_device(train.device))
    trains, scores = (SequenceFlops.of(network, train.context, training=training) for training in (True, False))
    trained = sum(one.failure is None or one.failure.kind == "diverged" for one in results)
    scored = sum(one.failure is None for one in results)
    return BranchCost(
        trained,
        training=trains.of_windows(setting.steps * train.batch_size, train.context) * trained,
        scoring=scores.cost(batch for batches in texts.values() for batch in batches) * scored,
    )
