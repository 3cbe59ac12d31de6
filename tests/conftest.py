"""Fixtures that the tests of any room may use."""

import gc
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tikmix_pipeline.corpus.records import PreparedText
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.corpus.tasks import Item
from tikmix_pipeline.corpus.tokenizer import train_tokenizer
from tikmix_pipeline.corpus.writing import write_corpus
from tikmix_pipeline.parameters import CorpusParameters
from tikmix_pipeline.parameters.training import ProcessParameters

if TYPE_CHECKING:
    from tikmix_pipeline.distributed.sharding import RankMesh

# each domain has words of its own, so that a model can tell them apart
_SYLLABLES = {"code": ["ka", "ti", "xe", "zo"], "prose": ["lo", "me", "nu", "ria"], "verse": ["sha", "wi", "yo", "fel"]}


LONG = ("test_compare.py", "test_smoke.py", "test_measure.py", "test_on_two_ranks.py", "test_influence_on_ranks.py")
"""Files of a minute and more. Two processes share the tests, file by file; what begins last should be short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: these files, then whole pipelines, then the rest."""
    items.sort(key=lambda item: (item.path.name not in LONG, "pipelines" not in item.path.parts))


@pytest.fixture(scope="module", autouse=True)
def left_in_peace() -> None:
    """Leave what tests so far have left, and what they consist of, out of later looks for cycles: each run has some."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def token_shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    """A corpus on disk, not to be changed: three domains of about 4,000 tokens, 320 ids, two tasks of 2 x 7 items."""
    return _corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def choice_shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    """The same, but that all items of the task `recall` but one in each half offer two to four options."""
    return _corpus(tmp_path_factory.mktemp("choices"), with_options=True)


def _corpus(folder: Path, *, with_options: bool = False) -> TokenShards:
    documents = {
        domain: {
            "train": [_text(domain, row, words=90) for row in range(24)],
            "heldout": [_text(domain, row, words=90) for row in range(24, 28)],
        }
        for domain in _SYLLABLES
    }
    items = {
        "recall": {
            "query": _items("prose", range(7), with_options=with_options),
            "evaluation": _items("prose", range(7, 14), with_options=with_options),
        },
        "rhyme": {"query": _items("verse", range(7)), "evaluation": _items("verse", range(7, 14))},
    }
    tokenizer = train_tokenizer((text for splits in documents.values() for text in splits["train"]), 320)
    parameters = CorpusParameters.model_validate(
        {
            "name": "tiny",
            "domains": {domain: {"sources": [{"kind": "files", "path": "none.jsonl"}]} for domain in documents},
            "tasks": {task: {"sources": [{"kind": "files", "path": "none.jsonl"}]} for task in items},
        }
    )
    return write_corpus(parameters, PreparedText(documents, items), tokenizer, folder, folder / "tiny")


def _text(domain: str, seed: int, words: int) -> str:
    generator = np.random.default_rng([seed, len(domain)])
    syllables = generator.choice(_SYLLABLES[domain], size=(words, 3))
    return " ".join("".join(word[: 1 + len(word[0]) % 3]) for word in syllables) + ".\n"


def _items(domain: str, rows: range, *, with_options: bool = False) -> list[Item]:
    items = [Item(f"{_text(domain, 100 + row, 2 + row)}?", _text(domain, 200 + row, 1 + row % 3)) for row in rows]
    return items[:1] + [_with_options(domain, *one) for one in enumerate(items[1:])] if with_options else items


def _with_options(domain: str, number: int, item: Item) -> Item:
    options = [_text(domain, 300 + 10 * number + column, 1 + column) for column in range(2 + number % 3)]
    gold = number % len(options)
    options[gold] = item.answer
    return replace(item, options=tuple(options), gold=gold)


@pytest.fixture
def single_thread() -> Iterator[None]:
    """Matrices as small as those of the tests gain nothing from threads, and lose much on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def mesh_of_one(monkeypatch: pytest.MonkeyPatch) -> "Iterator[RankMesh]":
    """This very process as the only rank: all that ranks do, and nobody to wait for."""
    from tikmix_pipeline.distributed.sharding import joined

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": os.cpu_count() or 1}
    for name, value in {**values, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    with joined(ProcessParameters(device="cpu")) as mesh:
        yield mesh
