"""`RowCounts`: how many rows of each batch a domain gets.

With q_j = w_j·B rows per batch, domain j gets floor(q_j) or ceil(q_j) rows in every single batch, and floor(n·q_j) or
ceil(n·q_j) rows over the first n batches, for every n. Both hold exactly and for any number of domains.

Largest remainder with a carried error keeps one promise or the other: let free it can even take a row back, and held
to floor or ceil of q_j in each batch it falls more than a row behind (the tests show a mixture for each). Read as a
scheduling problem it is solved: the fraction f of a row that a domain has beyond its whole ones is a periodic task, the
m rows left for all fractions are m processors, and "never a full row behind or ahead" is proportionate fairness
(Baruah, Cohen, Plaxton and Varvel, Algorithmica 15, 1996). The schedule here is PD², its shortest optimal rule
(Srinivasan and Anderson, STOC 2002): the i-th fractional row of a domain may be dealt from batch floor((i-1)/f) on,
must be dealt before batch ceil(i/f), and the nearest deadline goes first.

Weights are read to 12 decimals and all is counted in integers, so there is no rounding error to carry. Cost: one
heap operation per fractional row, of which a batch has fewer than domains. State: the batches and the rows dealt.
"""

from collections import defaultdict
from collections.abc import Sequence
from heapq import heappop, heappush

_UNITS = 10**12


class RowCounts:
    """Deals the rows of one batch after another to the domains, by constant weights that sum to 1.

    By these weights `batches` are already dealt, and in them so many rows to each domain.
    """

    def __init__(
        self, weights: Sequence[float], batch_size: int, *, batches: int = 0, dealt: Sequence[int] | None = None
    ) -> None:
        quotas = [batch_size * units for units in _in_units(weights)]
        self._whole_rows = [quota // _UNITS for quota in quotas]
        self._fractions = [quota % _UNITS for quota in quotas]
        self._fractional_rows = sum(self._fractions) // _UNITS
        self._batches = batches
        self._waiting: dict[int, list[tuple[int, int, int, int, int]]] = defaultdict(list)
        self._ready: list[tuple[int, int, int, int, int]] = []
        for domain, fraction in enumerate(self._fractions):
            if fraction:
                already = dealt[domain] - batches * self._whole_rows[domain] if dealt is not None else 0
                self._await(domain, already + 1, already * _UNITS // fraction)

    def deal(self) -> list[int]:
        """Return the rows of the next batch per domain; they sum to the batch size."""
        for row in self._waiting.pop(self._batches, ()):
            heappush(self._ready, row)
        self._batches += 1
        rows = self._whole_rows.copy()
        for _ in range(self._fractional_rows):
            deadline, minus_overlap, _, domain, nth = heappop(self._ready)
            rows[domain] += 1
            self._await(domain, nth + 1, deadline + minus_overlap)
        return rows

    def _await(self, domain: int, nth: int, release: int) -> None:
        """Hold the `nth` fractional row of `domain` back until batch `release`, from which on it may be dealt.

        Rows that may be dealt are ordered by what PD² compares: deadline, overlap bit, group deadline.
        """
        fraction = self._fractions[domain]
        whole, beyond = divmod(nth * _UNITS, fraction)
        overlap = 1 if beyond else 0
        deadline = whole + overlap
        group_deadline = 0
        if fraction >= _UNITS // 2:
            rest = _UNITS - fraction
            missed = -(-deadline * rest // _UNITS)
            group_deadline = -(-missed * _UNITS // rest)
        self._waiting[max(release, self._batches)].append((deadline, -overlap, -group_deadline, domain, nth))


def _in_units(weights: Sequence[float]) -> list[int]:
    """Return the weights in units of 1e-12, summing to exactly 1; a weight of zero stays zero."""
    total = sum(weights)
    units = [round(weight / total * _UNITS) for weight in weights]
    units[units.index(max(units))] += _UNITS - sum(units)
    return units
