"""What the targets of influence are measured on: the tasks' query halves, and held-out windows of the domains.

Nothing here takes a model, so that a run can ask before its first node whether there is enough.
"""

from collections.abc import Sequence
from itertools import product
from math import ceil

import numpy as np

from tikmix_pipeline.corpus.batches import TokenBatch, batches_of
from tikmix_pipeline.corpus.choices import ChoiceBatch, choice_batches
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import HALVES, Half, TaskItems, item_batches
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.measurement import (
    GradientParameters,
    ScoringParameters,
    TargetParameters,
    heldout_target,
)

Samples = dict[str, Sequence[TokenBatch]]

TargetAmount = GradientParameters | ScoringParameters
"""Names the targets, and how much of each is read."""


def target_samples(shards: TokenShards, parameters: TargetAmount, *, context: int, turn: int = 0) -> Samples:
    """Take what influence is measured on, as `influence.targets` says; of tasks, other items every turn.

    A target with fewer sequences, or items of multiple choice, than `influence.micro_batches` raises a TikmixError, and
    so does a task without options whose choices are asked for.
    """
    samples: Samples = {}
    if parameters.targets in ("tasks", "all"):
        tasks = TaskItems.open(shards.tasks_file)
        for task in parameters.deciding(tasks.tasks):
            samples[task] = task_batches(
                tasks,
                task,
                "query",
                parameters,
                limit=parameters.items_per_task,
                turn=turn,
                context=context,
                batch_size=parameters.batch_size,
            )
    if parameters.targets in ("heldout", "all"):
        samples |= _heldout_windows(shards, parameters, context=context)
    for name, batches in samples.items():
        count = sum(batch.terms if isinstance(batch, ChoiceBatch) else len(batch) for batch in batches)
        if count < parameters.micro_batches:
            raise TikmixError(
                f"The target '{name}' has {count} sequences to measure influence on, fewer than "
                f"influence.micro_batches ({parameters.micro_batches}). Give it more items or lower that parameter."
            )
    return samples


def task_batches(
    tasks: TaskItems,
    task: str,
    half: Half,
    parameters: TargetParameters,
    *,
    limit: int | None,
    turn: int = 0,
    context: int,
    batch_size: int,
) -> Sequence[TokenBatch]:
    """Batch the items of one half of a task for the loss that `influence.task_loss` names, or `limit` of them.

    Of a task that is scored by its choices, items that offer none are left out.

    Raises:
        TikmixError: the task is to be scored by its choices, and no item of the half offers any.
    """
    loss = parameters.loss_of(task)
    if loss != "choice":
        items = tasks.items(task, half, limit, turn)
        return item_batches(items, context=context, batch_size=batch_size, loss=loss, pad_id=0)
    _require_choices(tasks, task, half)
    choices = tasks.choices(task, half, limit, turn)
    return choice_batches(choices, context=context, batch_size=batch_size, pad_id=0)


def require_choices(shards: TokenShards, parameters: TargetParameters) -> None:
    """Refuse a task that is to be scored by its choices, and offers none in either half.

    Raises:
        TikmixError: naming the task.
    """
    if parameters.targets == "heldout":
        return
    tasks = TaskItems.open(shards.tasks_file)
    for task, half in product(parameters.deciding(tasks.tasks), HALVES):
        if parameters.loss_of(task) == "choice":
            _require_choices(tasks, task, half)


def _require_choices(tasks: TaskItems, task: str, half: Half) -> None:
    if not tasks.choices(task, half, limit=1):
        raise TikmixError(
            f"influence.task_loss is 'choice' for the task '{task}', but none of its {half} items has options. Give "
            f'its records `options` (lines "A. ..."), or set influence.task_loss.{task} to text or answer.'
        )


def _heldout_windows(shards: TokenShards, parameters: TargetAmount, *, context: int) -> Samples:
    """Take as many tokens as of a domain; where these are to be found out, as many windows as a task has items."""
    limit = parameters.items_per_task if parameters.tokens == "auto" else ceil(parameters.tokens / context)
    samples: Samples = {}
    for domain in shards.domains:
        windows = shards.windows(domain, context, "heldout")
        count = len(windows) if limit is None else min(limit, len(windows))
        samples[heldout_target(domain)] = batches_of(windows.take(np.arange(count)), parameters.batch_size)
    return samples
