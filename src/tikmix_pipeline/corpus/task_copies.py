"""Items that stand in two tasks: they count twice, and what decides is judged by itself."""

import logging
from collections.abc import Mapping
from itertools import combinations

from tikmix_pipeline.corpus.tasks import HALVES, Items, without_spelling

_TOLD_SHARE = 0.2

_logger = logging.getLogger(__name__)


def tell_copies(items: Mapping[str, Items]) -> None:
    """Warn of two tasks where a fifth of one's items or more stand in the other, too."""
    texts = {
        name: {half: {without_spelling(item.text) for item in halves[half]} for half in HALVES}
        for name, halves in items.items()
    }
    both = {name: halves["query"] | halves["evaluation"] for name, halves in texts.items()}
    for one, other in combinations(items, 2):
        shared = both[one] & both[other]
        if len(shared) < _TOLD_SHARE * min(len(both[one]), len(both[other])) or not shared:
            continue
        judging = len(
            (texts[one]["query"] & texts[other]["evaluation"]) | (texts[other]["query"] & texts[one]["evaluation"])
        )
        _logger.warning(
            "corpus.tasks: %d of the %d items of '%s' stand in '%s' too. They count twice%s. Leave one of the two "
            "tasks out, or these items of one of them",
            *(len(shared), len(both[one]), one, other),
            f", and {judging} of them guide the mixture in one and judge it in the other" if judging else "",
        )
