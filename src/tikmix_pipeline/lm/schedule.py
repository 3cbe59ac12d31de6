"""Warm-up, stable, decay: the learning rate over the whole run, across chunks.

The rate rises linearly, stays, and falls linearly at the end of the last round only, so that all earlier rounds are
measured at the full rate (Hu et al. 2024, MiniCPM, section 4).
"""

import math
from dataclasses import dataclass, replace

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.training import ScheduleParameters


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning-rate factors by global step; lengths are in steps."""

    chunk_steps: int
    total_steps: int
    warmup_steps: int
    decay_steps: int
    final_fraction: float

    @classmethod
    def of(cls, parameters: ScheduleParameters, rounds: int) -> "Schedule":
        """Convert token amounts to steps; raise a TikmixError if warm-up and decay are longer than the run."""
        chunk_steps = parameters.steps_per_chunk
        warmup_steps = math.ceil(parameters.warmup_tokens / parameters.tokens_per_step)
        decay_steps = math.ceil(parameters.decay_tokens / parameters.tokens_per_step)
        if warmup_steps + decay_steps > chunk_steps * rounds:
            raise TikmixError(
                f"train.warmup_tokens ({parameters.warmup_tokens}) and train.decay_tokens ({parameters.decay_tokens}) "
                f"are longer than the whole run of {rounds} rounds x train.chunk_tokens ({parameters.chunk_tokens}). "
                "Shorten them or train more."
            )
        return cls(
            chunk_steps=chunk_steps,
            total_steps=chunk_steps * rounds,
            warmup_steps=warmup_steps,
            decay_steps=decay_steps,
            final_fraction=parameters.final_learning_rate_fraction,
        )

    def factor(self, step: int) -> float:
        """Return the factor of the peak learning rate for the step that follows `step` finished ones."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        steps_left = max(0, self.total_steps - step - 1)
        if steps_left >= self.decay_steps:
            return warmup
        return warmup * (self.final_fraction + (1 - self.final_fraction) * steps_left / self.decay_steps)

    def annealed(self, first: int, steps: int) -> "Schedule":
        """Return a schedule whose rate falls linearly over so many steps from `first` on, to zero after the last."""
        return replace(self, total_steps=first + steps + 1, decay_steps=steps + 1, final_fraction=0.0)

    def within(self, first: int, last: int) -> "Schedule":
        """Return what counts of this schedule for the steps from `first` up to, not including, `last`.

        Their factors are the same bits. A warm-up that is over and a decay that has not begun leave no trace, so that
        schedules which differ in these alone are equal here.
        """
        is_warm = first + 1 >= self.warmup_steps
        begins_to_fall = self.total_steps - last < self.decay_steps
        return Schedule(
            chunk_steps=last - first,
            total_steps=self.total_steps if begins_to_fall else last,
            warmup_steps=0 if is_warm else self.warmup_steps,
            decay_steps=self.decay_steps if begins_to_fall else 0,
            final_fraction=self.final_fraction if begins_to_fall else 1.0,
        )

    def rate_sum(self, first: int, last: int) -> float:
        """Return the sum of the factors of the steps from `first` up to, not including, `last`."""
        return math.fsum(self.factor(step) for step in range(first, last))


def horizon_after(parameters: ScheduleParameters, rounds: int, round_number: int) -> float:
    """Return the sum of the learning rates over the chunk that follows round `round_number`.

    After the last of `rounds` one more round is taken to follow.
    """
    schedule = Schedule.of(parameters, max(rounds, round_number + 2))
    first = (round_number + 1) * schedule.chunk_steps
    return parameters.learning_rate * schedule.rate_sum(first, first + schedule.chunk_steps)
