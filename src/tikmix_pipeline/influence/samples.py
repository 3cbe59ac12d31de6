"""What influence is measured on: the text each domain would be trained on next, and the tasks' query halves."""

from collections.abc import Sequence
from math import ceil

import numpy as np

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.stream import MixtureStream
from tikmix_pipeline.corpus.tasks import TaskItems, item_batches
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters import InfluenceParameters

Samples = dict[str, Sequence[TokenBatch]]


def domain_samples(
    stream: MixtureStream, domains: Sequence[str], parameters: InfluenceParameters, *, context: int
) -> Samples:
    """Take the windows of each domain that the stream would read next.

    A domain's gradient on text the model has just been trained on is too small; the text to come is what the decision
    is about.
    """
    count = ceil(parameters.tokens_per_domain / context)
    samples: Samples = {}
    for domain in domains:
        windows = stream.upcoming(domain, count)
        samples[domain] = [
            TokenBatch.of_windows(windows[start : start + parameters.batch_size])
            for start in range(0, count, parameters.batch_size)
        ]
    return samples


def target_samples(shards: TokenShards, parameters: InfluenceParameters, *, context: int) -> Samples:
    """Take the query items of each task, or held-out windows of each domain, as `influence.targets` says.

    The evaluation halves of the tasks are never read here.

    Raises:
        TikmixError: a target has fewer sequences than `influence.micro_batches`.
    """
    samples: Samples = {}
    if parameters.targets in ("tasks", "all"):
        samples |= _query_items(TaskItems.open(shards.tasks_file), parameters, context=context)
    if parameters.targets in ("heldout", "all"):
        samples |= _heldout_windows(shards, parameters, context=context)
    for name, batches in samples.items():
        sequences = sum(len(batch) for batch in batches)
        if sequences < parameters.micro_batches:
            raise TikmixError(
                f"The target '{name}' has {sequences} sequences to measure influence on, fewer than "
                f"influence.micro_batches ({parameters.micro_batches}). Give it more items or lower that parameter."
            )
    return samples


def _query_items(tasks: TaskItems, parameters: InfluenceParameters, *, context: int) -> Samples:
    return {
        task: item_batches(
            tasks.items(task, "query", parameters.items_per_task),
            context=context,
            batch_size=parameters.batch_size,
            loss=parameters.task_loss,
            pad_id=0,
        )
        for task in tasks.tasks
    }


def _heldout_windows(shards: TokenShards, parameters: InfluenceParameters, *, context: int) -> Samples:
    limit = ceil(parameters.tokens_per_domain / context)
    samples: Samples = {}
    for domain in shards.domains:
        windows = shards.windows(domain, context, "heldout")
        chosen = windows.take(np.arange(min(limit, len(windows))))
        samples[f"heldout-{domain}"] = [
            TokenBatch.of_windows(chosen[start : start + parameters.batch_size])
            for start in range(0, len(chosen), parameters.batch_size)
        ]
    return samples
