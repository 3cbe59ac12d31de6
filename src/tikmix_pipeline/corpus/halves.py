"""Which items of a task guide the mixture, and which judge it: no question stands on both sides."""

import hashlib
import unicodedata
from collections.abc import Sequence

from tikmix_pipeline.corpus.tasks import Half, Item
from tikmix_pipeline.errors import TikmixError


def split_items(items: Sequence[Item], *, max_items: int | None, seed: int) -> dict[Half, list[Item]]:
    """Deal a task's items to its two halves: `query` guides the mixture, `evaluation` judges it.

    Topics are taken in the order of a seeded hash of each; the first half of the items are queries.

    Raises:
        TikmixError: there are fewer than two topics.
    """
    by_topic: dict[str, list[Item]] = {}
    for item in items:
        by_topic.setdefault(_normalised(item.topic), []).append(item)
    exact = {topic: min(item.topic for item in of_topic) for topic, of_topic in by_topic.items()}
    topics = sorted(exact, key=lambda topic: hashlib.blake2b(exact[topic].encode(), key=str(seed).encode()).digest())
    chosen = [item for topic in topics for item in by_topic[topic]][:max_items]
    middle = len(chosen) // 2
    while middle > 0 and _normalised(chosen[middle - 1].topic) == _normalised(chosen[middle].topic):
        middle -= 1
    if middle == 0:
        raise TikmixError(
            f"{len(chosen)} items on {len({item.topic for item in chosen})} different questions or passages cannot be "
            "split into a query and an evaluation half. Add items, or raise max_items."
        )
    return {"query": chosen[:middle], "evaluation": chosen[middle:]}


def _normalised(topic: str) -> str:
    """Return what is the same of a topic however it is written: case, white space and Unicode's forms do not count."""
    return " ".join(unicodedata.normalize("NFKC", topic).casefold().split())
