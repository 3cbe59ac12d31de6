"""What a run reads as MLflow's datasets: text of domains to train on, evaluation halves of tasks to be scored on.

A digest tells the tokens: equal digests, equal tokens in equal order.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.corpus.tasks import TaskItems, TokenisedItem

_DIGEST_LENGTH = 32  # MLflow takes 36
_CONTEXT = "mlflow.data.context"
_EVALUATION = "evaluation"


def dataset_inputs(corpus: "TokenShards") -> list[Any]:
    """Return the domains and the tasks of a corpus as MLflow's inputs of a run."""
    from tikmix_pipeline.corpus.tasks import TaskItems  # which imports pyarrow

    items = TaskItems.open(corpus.tasks_file)
    return [
        *(_domain(corpus, name) for name in corpus.domains),
        *(_task(corpus, name, items) for name in items.tasks),
    ]


def task_digests(inputs: Sequence[Any]) -> dict[str, str]:
    """Return the digests of the tasks among the inputs, by their names."""
    return {one.dataset.name: one.dataset.digest for one in inputs if any(tag.value == _EVALUATION for tag in one.tags)}


def _domain(corpus: "TokenShards", name: str) -> Any:
    profile = {"tokens": corpus.tokens(name), "documents": corpus.documents(name)}
    return _input(name, corpus.digest(name), (corpus.folder / name).as_posix(), profile, "training")


def _task(corpus: "TokenShards", name: str, items: "TaskItems") -> Any:
    half = items.items(name, "evaluation")
    digest = hashlib.sha256("".join(map(_told, half)).encode()).hexdigest()
    profile = {"items": len(half), "tokens": sum(len(item.question_ids) + len(item.answer_ids) for item in half)}
    return _input(name, digest, corpus.tasks_file.as_posix(), profile, _EVALUATION)


def _told(item: "TokenisedItem") -> str:
    return f"{item.question_ids}{item.answer_ids}{item.option_ids}{item.gold};"


def _input(name: str, digest: str, uri: str, profile: dict[str, int], context: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=name,
        digest=digest[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": uri}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, tags=[InputTag(_CONTEXT, context)])
