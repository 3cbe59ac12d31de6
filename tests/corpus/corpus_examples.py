"""Small corpora for the tests of this room: synthetic text, and wheels made on the spot."""

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tikmix_pipeline.corpus.documents import Document
from tikmix_pipeline.corpus.readers import READERS
from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer
from tikmix_pipeline.parameters import CorpusParameters
from tikmix_pipeline.parameters.corpus import DebianSource, NpmSource, PackageSource

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "en", "iro", "ul", "ost", "ima", "eck")]


def random_text(seed: int, words: int = 60) -> str:
    """Return a text of random words; texts of different seeds share next to no n-grams."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, size=words).tolist()) + "\n"


def documents(*texts: str, seed: int = 0) -> list[Document]:
    return [Document.of(text, seed) for text in texts]


def without_other_letters(tokenizer: CorpusTokenizer, words: Iterable[str] = WORDS) -> CorpusTokenizer:
    """Return a tokenizer that passes over all letters but those of these words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(words, trainers.BpeTrainer(show_progress=False))
    return replace(tokenizer, backend=backend)


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_wheel(path: Path, members: dict[str, bytes]) -> str:
    """Write an archive and return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def package_source(sha256: str, **changes: Any) -> PackageSource:
    values = {"kind": "package", "package": "tiny-text", "version": "1.0", "sha256": sha256, "members": "tiny/*.txt"}
    return PackageSource.model_validate(values | changes)


def npm_source(sha256: str, **changes: Any) -> NpmSource:
    values = {"kind": "npm", "package": "tiny-text", "version": "1.0.0", "sha256": sha256, "members": "package/*.txt"}
    return NpmSource.model_validate(values | changes)


def debian_source(sha256: str, **changes: Any) -> DebianSource:
    values = {"kind": "debian", "package": "tiny-text", "version": "1:1.0-2", "sha256": sha256, "members": "usr/*.txt"}
    return DebianSource.model_validate(values | changes)


def corpus_in(folder: Path, **changes: Any) -> CorpusParameters:
    """Write two domains of 40 documents and one task of 20 items into `folder`; return parameters that read them."""
    for number, domain in enumerate(("prose", "verse")):
        rows = [{"text": random_text(1000 * (number + 1) + row)} for row in range(40)]
        write_jsonl(folder / f"{domain}.jsonl", rows)
    items = [{"question": random_text(row, 12).strip() + "?", "answer": random_text(row + 50, 3)} for row in range(20)]
    write_jsonl(folder / "quiz.jsonl", items)
    values: dict[str, Any] = {
        "name": "tiny",
        "domains": {
            "prose": {"sources": [{"kind": "files", "path": "prose.jsonl"}]},
            "verse": {"sources": [{"kind": "files", "path": "verse.jsonl"}]},
        },
        "tasks": {"quiz": {"sources": [{"kind": "files", "path": "quiz.jsonl"}]}},
        "heldout_fraction": 0.1,
        "tokenizer": {"vocabulary_size": 400},
    }
    return CorpusParameters.model_validate(values | changes)


def read_bytes(reader: str, *contents: bytes, field: str | None = None) -> list[str]:
    """Return the documents that a reader finds in files of these contents."""
    return read_named(reader, {f"file{number}": content for number, content in enumerate(contents)}, field)


def read_named(reader: str, files: dict[str, bytes], field: str | None = None) -> list[str]:
    return list(READERS[reader](files.items(), field))
