"""The node that prepares a checkpoint for its measurement: a few steps on the prior.

A checkpoint is in balance with the mixture that it was trained under: wherever the loss is steep, the gradients of the
domains, weighed by that mixture, cancel out. So a domain that was just read a lot has next to no gradient left there,
and seems to help little, though more of it would go on helping. What is measured a few steps after the checkpoint, on
the prior, compares domains on an equal footing in every round.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import InfluenceParameters, ModelParameters, RunParameters, TrainParameters
from tikmix_pipeline.pipelines.branches import branch_rates, branch_schedule, relevant_to_branch_training
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Checkpoint, TokenShards


def _relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del root
    train, rounds = parameters.train, parameters.tikmix.rounds
    steps = parameters.influence.rebalancing_steps(train)
    rates = branch_rates(train, steps=steps, anneal=False, rounds=rounds, number=round_number)
    return relevant_to_branch_training(parameters, rates) | {"influence": {"rebalancing_steps": steps}}


@step(_relevant)
def rebalance(
    checkpoint: Checkpoint,
    mixture: Mapping[str, Any],
    prior: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    rounds: int,
    seed: int,
) -> Callable[[Path], Any]:
    """Train on the prior for `influence.rebalance_tokens`; the run itself goes on from the checkpoint as it was."""
    from functools import partial

    from tikmix_pipeline.lm.branch import train_branch
    from tikmix_pipeline.lm.checkpoint import save_checkpoint

    steps = influence.rebalancing_steps(train)
    state = train_branch(
        checkpoint,
        corpus,
        prior["weights"],
        steps=steps,
        model=model,
        train=train,
        schedule=branch_schedule(train, steps=steps, anneal=False, rounds=rounds, number=mixture["round"]),
        seed=seed,
        description=f"Round {mixture['round']}: rebalancing",
    )
    return partial(save_checkpoint, state, tokenizer=corpus.tokenizer_folder)
