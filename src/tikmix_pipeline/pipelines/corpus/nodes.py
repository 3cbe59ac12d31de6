"""Nodes of the `corpus` pipeline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.parameters.base import OnDisk, View
from tikmix_pipeline.parameters.corpus import ShardParameters, TextParameters

if TYPE_CHECKING:
    from tikmix_pipeline.corpus.records import PreparedText


class TextView(View):
    """What the prepared text depends on: which sources there are, how they are read, and what they hold."""

    corpus: TextParameters
    files: OnDisk


class ShardView(View):
    """What the token shards depend on besides the text; the files are those of the user's tokenizer."""

    corpus: ShardParameters
    files: OnDisk


def prepare(view: TextView, project: Path, downloads: Path) -> Callable[[Path], None]:
    """Fetch or read the sources, remove duplicates and evaluation text, and split by document."""
    from tikmix_pipeline.corpus.build import prepare_text

    return prepare_text(view.corpus, root=project, downloads=downloads).write


def tokenize(view: ShardView, text: PreparedText, project: Path) -> Callable[[Path], Any]:
    """Train or load the tokenizer and write every domain and task as token ids."""
    from tikmix_pipeline.corpus.build import build_tokenizer, write_corpus

    tokenizer = build_tokenizer(view.corpus.tokenizer, text, root=project)
    return partial(write_corpus, view.corpus, text, tokenizer, project)
