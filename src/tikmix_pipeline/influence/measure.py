"""Group Influence at a checkpoint: samples, curvature, matrix."""

from collections.abc import Mapping

from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.influence.curvature.fit import fit_curvature
from tikmix_pipeline.influence.group import GroupInfluence, measure_group_influence
from tikmix_pipeline.influence.parts import take_evenly
from tikmix_pipeline.influence.samples import domain_samples, target_samples
from tikmix_pipeline.lm.checkpoint import Checkpoint
from tikmix_pipeline.lm.chunk import restore_state
from tikmix_pipeline.parameters import InfluenceParameters, ModelParameters, TrainParameters


def measure_checkpoint(
    checkpoint: Checkpoint,
    shards: TokenShards,
    mixture: Mapping[str, float],
    *,
    model: ModelParameters,
    train: TrainParameters,
    influence: InfluenceParameters,
    seed: int,
) -> GroupInfluence:
    """Measure what more of each domain would do for each target.

    Args:
        mixture: what the checkpoint was trained under; it changes nothing but names the domains of the stream.

    Raises:
        TikmixError: the checkpoint does not fit the corpus, a target is too small, or a gradient is not finite.
    """
    checkpoint.require_tokenizer(shards.tokenizer_digest)
    targets = target_samples(shards, influence, context=train.context)
    placed = train.model_copy(update={"device": influence.device})
    state = restore_state(checkpoint, shards, mixture, model=model, train=placed, seed=seed)
    samples = domain_samples(state.stream, shards.domains, influence, context=train.context)
    curvature = fit_curvature(
        influence,
        state.model,
        batches=take_evenly(samples, influence.factor_tokens),
        optimizer_state=checkpoint.optimizer_tensors(),
        train=train,
        seed=seed,
    )
    return measure_group_influence(state.model, samples, targets, curvature, micro_batches=influence.micro_batches)
