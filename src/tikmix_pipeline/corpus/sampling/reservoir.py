"""`Reservoir`: an even sample of a stream of unknown length, of a limited number of bytes, that looks at few units.

Every unit has a random key, and those with the smallest keys are kept, up to the first that overflows the limit. A
unit whose key is above all kept ones is out for good, so the number of units to pass over before the next candidate is
drawn from its geometric distribution instead, as Algorithm L does for a limited number of units (Li, 1994). A stream of
n bytes has about limit (1 + ln(n / limit)) bytes of candidates. A unit that stands for `weight` units has its key
divided by it, and so is as many times as likely to stay.
"""

import heapq
import math
from collections.abc import Callable

import numpy as np

from tikmix_pipeline.corpus.sampling.sampled import is_blank, size_of


class Reservoir:
    """An even sample of what is offered; holds the sample and nothing else.

    Attributes:
        skip: how many units to pass over before the one that must be given to `add`.
    """

    def __init__(self, limit_bytes: float, generator: np.random.Generator):
        self.skip = 0
        self._limit_bytes = limit_bytes
        self._generator = generator
        self._heap: list[tuple[float, str, int]] = []
        self._held_bytes = 0
        self._weight = 1.0
        self._threshold = math.inf
        self._weighed_text = 0.0
        self._weighed_raw = 0.0

    @property
    def texts(self) -> list[str]:
        """The sample, in random order."""
        return [text for _, text, _ in sorted(self._heap, reverse=True)]

    @property
    def weight(self) -> float:
        """How many units each of those to come stands for; 1 unless it is set."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        if weight != self._weight:
            self._weight = weight
            # the geometric distribution has no memory: what was passed over already changes nothing
            self.skip = self._draw_skip()

    @property
    def text_share(self) -> float:
        """Bytes of text per raw byte, estimated from the candidates by their weight and how rare it was to be one."""
        return self._weighed_text / self._weighed_raw if self._weighed_raw else 0.0

    def offer(self, text: Callable[[], str], raw_bytes: int) -> None:
        """Offer one unit of the stream; its text is asked for when it is a candidate."""
        if self.skip:
            self.skip -= 1
        else:
            self.add(text(), raw_bytes)

    def add(self, text: str, raw_bytes: int) -> None:
        """Take the candidate that `skip` leads to, and draw how far the next one is.

        Args:
            text: a document; a blank one is left out.
            raw_bytes: what it takes in the stream.
        """
        size = size_of(text)
        largest_key = min(self._threshold, 1 / self._weight)  # of a candidate of this weight
        self._weighed_text += size / largest_key
        self._weighed_raw += raw_bytes / largest_key
        if not is_blank(text):
            heapq.heappush(self._heap, (-largest_key * self._generator.random(), text, size))
            self._held_bytes += size
            while len(self._heap) > 1 and self._held_bytes > self._limit_bytes:
                key, _, overflow = heapq.heappop(self._heap)
                self._held_bytes -= overflow
                self._threshold = -key
        self.skip = self._draw_skip()

    def _draw_skip(self) -> int:
        share = self._threshold * self._weight
        if share >= 1:
            return 0
        # 1 - random() is never 0
        return int(math.log(1 - self._generator.random()) / math.log1p(-share))
