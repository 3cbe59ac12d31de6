"""Items that stand in two tasks: they count twice, and what decides is judged by itself."""

import logging
from collections.abc import Mapping
from itertools import combinations

from tikmix_pipeline.corpus.tasks import HALVES, Half, Items, without_spelling

_TOLD_SHARE = 0.2

_logger = logging.getLogger(__name__)


def tell_copies(items: Mapping[str, Items]) -> None:
    """Warn of two tasks where a fifth of one's items or more stand in the other, too."""
    for one, other in combinations(items, 2):
        shared = _texts(items[one]) & _texts(items[other])
        fewest = min(len(_texts(items[name])) for name in (one, other))
        if len(shared) < _TOLD_SHARE * fewest or not shared:
            continue
        judging = len(_crossing(items[one], items[other]) | _crossing(items[other], items[one]))
        _logger.warning(
            "corpus.tasks: %d of the %d items of '%s' stand in '%s' too. They count twice%s. Leave one of the two "
            "tasks out, or these items of one of them",
            *(len(shared), len(_texts(items[one])), one, other),
            f", and {judging} of them guide the mixture in one and judge it in the other" if judging else "",
        )


def _texts(halves: Items, *of: Half) -> set[str]:
    return {without_spelling(item.text) for half in of or HALVES for item in halves[half]}


def _crossing(guiding: Items, judging: Items) -> set[str]:
    return _texts(guiding, "query") & _texts(judging, "evaluation")
