"""What processes that work together tell each other: here one is alone, and has nobody to wait for.

`ranks.exchange.RankExchange` is the same for several. Each of them makes the same calls in the same order.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from tikmix_pipeline.files import replacing

Value = TypeVar("Value")


class Exchange:
    """One process that is all there are.

    Attributes:
        rank: its number.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """This is the process that does what only one may do."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all have come here."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes of tensors of one shape, the same on each."""
        return value

    def sum_at(self, owner: int, value: Tensor) -> None:
        """Add what all processes have, in place, at one of them; what the others are left with is of no use."""

    def everyones(self, value: Any) -> list[Any]:
        """Return the small values of all processes, in the order of their ranks."""
        return [value]

    def by_the_first(self, decide: Callable[[], Value]) -> Value:
        """Return what one process finds, where each might find something else, as on a disk that lags behind."""
        return decide()

    def shared(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of all processes, each of which has some, by names that no two have."""
        return dict(tensors)

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield one temporary file, or folder to be made, for all to write to, and then rename it over `path`."""
        with replacing(path) as temporary:
            yield temporary


ALONE = Exchange()
