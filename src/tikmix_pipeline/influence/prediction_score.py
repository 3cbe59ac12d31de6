"""A recorded prediction beside what came: what tasks were to gain, and by how much their losses fell over the chunk.

Predicted is a gain over keeping the mixture of before; measured is the fall of the loss at the next checkpoint, on the
same query items. The fall is what all of the chunk did. What the old mixture would have done in its place is a part of
it, and nobody trained that, so a fall confirms no gain. It may speak against one: unless the old mixture would have
made a task worse, the task cannot have gained more than it fell.
"""

from collections.abc import Mapping

from tikmix_pipeline.influence.report import Measurement
from tikmix_pipeline.record import Record

ERRORS = 2.0
"""Standard errors that a gain must be above the fall to be spoken against."""
_ELSEWHERE = 0.02
"""Share of the tokens from which on a chunk counts as trained under another mixture."""
_WHAT_IT_SAYS = (
    "A fall is what the whole chunk did. What the old mixture would have done in its place was not trained, so a fall "
    "confirms no gain; a gain above the fall is spoken against. Train both (validate, compare) to know."
)


class PredictedGain(Record):
    """What a task is predicted to gain over the current mixture, with the standard error of the sampled sequences."""

    gain: float
    stderr: float | None
    """None where it is not known."""
    nats: float | None
    """The same in nats per token of the task; None where nothing says what a gain is in nats."""


class TaskScore(Record):
    """One task: what was predicted, and what came."""

    predicted: PredictedGain
    fall: float
    """By how much its loss is lower at the next checkpoint, in nats per token, or per item of multiple choice."""
    is_against: bool
    """Whether the gain, in nats and less two standard errors, is above the fall."""


class PredictionScore(Record):
    """`prediction_score.json`: a prediction for the chunk before this round's checkpoint, beside what came."""

    round: int
    """The round that was measured when the prediction was made."""
    elsewhere: float
    """The share of the chunk's tokens that went elsewhere than predicted for."""
    tasks: dict[str, TaskScore]
    notes: tuple[str, ...]
    """What it says and what it does not, in sentences."""


def score_prediction(
    number: int,
    gains: Mapping[str, PredictedGain],
    mixture: Mapping[str, float],
    trained: Mapping[str, float],
    before: Measurement,
    after: Measurement,
) -> PredictionScore:
    """Hold a prediction made at round `number` against the losses at its checkpoint and at the next one.

    Args:
        mixture: that the prediction is about.
        trained: that the chunk was really trained under.
    """
    same = [task for task in gains if before.task_tokens.get(task, -1) == after.task_tokens.get(task, -2)]
    tasks = {task: _score(gains[task], before.task_loss[task] - after.task_loss[task]) for task in same}
    elsewhere = sum(abs(mixture.get(name, 0.0) - trained.get(name, 0.0)) for name in {*mixture, *trained}) / 2
    notes = [_WHAT_IT_SAYS]
    if elsewhere > _ELSEWHERE:
        notes.append(f"The chunk was trained under another mixture: {elsewhere:.1%} of its tokens went elsewhere.")
    notes += [f"'{task}' was measured on other items, or not in both rounds." for task in gains if task not in tasks]
    return PredictionScore(round=number, elsewhere=elsewhere, tasks=tasks, notes=tuple(notes))


def score_lines(score: PredictionScore) -> list[str]:
    """Say in a line per task what was predicted and what came."""
    lines = [f"Predicted after round {score.round}, and what came"]
    for task, one in score.tasks.items():
        nats = one.predicted.nats
        told = f"{one.predicted.gain:+.3g} of the best possible" if nats is None else f"{nats:+.3g} nats per token"
        against = ", which speaks against the gain" if one.is_against else ""
        lines.append(f"{task}: to gain {told}; its loss fell by {one.fall:.3g} nats{against}")
    return [*lines, *score.notes]


def _score(predicted: PredictedGain, fall: float) -> TaskScore:
    nats, error = predicted.nats, predicted.stderr
    is_against = False
    if nats is not None and error is not None and predicted.gain:
        is_against = nats - ERRORS * error * abs(nats / predicted.gain) > fall
    return TaskScore(predicted=predicted, fall=fall, is_against=is_against)
