"""Whether a model's embedding has a row for every token id of a corpus.

A tokenizer may have more ids than a model, such as a padding token that was added to it: what counts is which of them
text makes.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from tikmix_pipeline.corpus.shards import TokenShards, chunks_of_ids
from tikmix_pipeline.corpus.tasks import HALVES, TaskItems
from tikmix_pipeline.errors import TikmixError


def require_known_ids(shards: TokenShards, known: int, folder: Path) -> None:
    """Refuse a corpus that uses a token id beyond a model's; where the tokenizer has none, nothing is read.

    Args:
        shards: all of whose domains and tasks are looked at, once a process.
        known: ids that the model knows, from 0.
        folder: of the model's checkpoint, for the message.

    Raises:
        TikmixError: naming the first domain or task with such an id.
    """
    if shards.vocabulary_size <= known:
        return
    for name, largest in _largest_ids(shards.folder, shards.manifest_digest).items():
        if largest >= known:
            raise TikmixError(
                f"{name} uses the token id {largest}, but the model in {folder} knows {known} (the tokenizer has "
                f"{shards.vocabulary_size}). Resize its embeddings (resize_token_embeddings), or tokenise the corpus "
                "with the tokenizer that it was trained on."
            )


@lru_cache(maxsize=8)
def _largest_ids(folder: Path, _digest: str) -> dict[str, int]:
    shards = TokenShards.open(folder, verify=False)
    largest = {
        f"corpus.domains.{domain}": max(
            int(ids.max())
            for split in splits.values()
            for file in split.files
            for ids in chunks_of_ids(folder / file.file, shards.manifest.dtype)
        )
        for domain, splits in sorted(shards.manifest.domains.items())
    }
    items = TaskItems.open(shards.tasks_file)
    return largest | {f"corpus.tasks.{task}": max(_ids_of(items, task)) for task in items.tasks}


def _ids_of(items: TaskItems, task: str) -> Iterator[int]:
    for half in HALVES:
        for item in items.items(task, half):
            for ids in (item.question_ids, item.answer_ids, *item.option_ids):
                yield from ids
