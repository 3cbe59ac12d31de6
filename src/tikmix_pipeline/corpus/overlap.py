"""Contamination: evaluation text that also stands in the training text.

Every evaluation text (a task's item or a held-out document) is looked up in every training document by its distinct
word n-grams. It counts as *hit* by a domain when at least one of them stands there, and as *leaked* when at least
`max_share` of them stand in one document. Then
- training documents that leak task items are removed,
- held-out documents that leak into what is left are no longer held out (nor trained on), and
- the report says how much of each evaluation set still stands in the training text.

Texts shorter than one n-gram are not looked up; the report counts them. Nor are pre-tokenised domains, for which it has
a row that says so. Cost: one table look-up per training word,
plus a sorted search for the few n-grams that pass it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.corpus.documents import Document, Hashes, hash_words, ngram_hashes
from tikmix_pipeline.parameters.corpus import OverlapParameters
from tikmix_pipeline.progress import progress_bar

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

_TABLE_BITS = 24
UNCHECKED = "not checked for overlap or duplicates"


@dataclass(frozen=True)
class OverlapRow:
    """How one evaluation set overlaps with one domain's training text.

    Attributes:
        evaluation: a task's name, or `heldout/<domain>`.
        domain: the domain whose training documents were searched.
        texts: evaluation texts looked up.
        too_short: evaluation texts with fewer words than an n-gram, not looked up.
        hit: texts with at least one n-gram in the domain, before removal.
        leaked: texts with at least `max_share` of their n-grams in one document of the domain, before removal.
        training_documents_removed: documents of the domain that leaked this set.
        heldout_documents_dropped: documents of this set that leaked into the domain.
        share_left: of the set's distinct n-grams, the share that stands in the domain's training text after removal.
    """

    evaluation: str
    domain: str
    texts: int
    too_short: int
    hit: int
    leaked: int
    training_documents_removed: int
    heldout_documents_dropped: int
    share_left: float

    def as_dict(self) -> dict[str, str | int | float]:
        """Return the row as JSON holds it."""
        return asdict(self)


def unchecked_row(domain: str) -> dict[str, str | None]:
    """Return the report's row on a pre-tokenised domain: its text is unknown, and so are all the counts."""
    row: dict[str, str | None] = dict.fromkeys(column.name for column in fields(OverlapRow))
    return row | {"evaluation": UNCHECKED, "domain": domain}


@dataclass
class _Index:
    """The distinct n-grams of all evaluation texts.

    `keys` are sorted; the texts that hold `keys[i]` are `texts[starts[i] : starts[i + 1]]`.
    """

    keys: Hashes
    texts: Integers
    starts: Integers
    ngrams: Integers
    """Distinct n-grams per text."""
    table: Booleans = field(repr=False)
    """True at the top bits of every key: most words of the training text are ruled out by one look-up."""

    @classmethod
    def of(cls, texts: Sequence[Hashes], length: int) -> "_Index":
        hashes = [np.unique(ngram_hashes(words, length)) for words in texts]
        ngrams = np.array([len(item) for item in hashes], dtype=np.int64)
        flat = np.concatenate([np.empty(0, np.uint64), *hashes])
        owners = np.repeat(np.arange(len(texts)), ngrams)
        order = np.argsort(flat, kind="stable")
        keys, starts = np.unique(flat[order], return_index=True)
        table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
        table[_top_bits(keys)] = True
        return cls(keys, owners[order], np.append(starts, len(flat)), ngrams, table)

    def find(self, hashes: Hashes) -> Integers:
        """Return the distinct positions in `keys` of the hashes that stand there."""
        candidates = np.unique(hashes[self.table[_top_bits(hashes)]])
        positions = np.minimum(np.searchsorted(self.keys, candidates), len(self.keys) - 1)
        found: Integers = positions[self.keys[positions] == candidates]
        return found

    def held_by(self, texts: Booleans) -> Integers:
        """Return the distinct positions in `keys` of the n-grams that the texts marked True hold."""
        entries = np.repeat(np.arange(len(self.keys)), np.diff(self.starts))
        return np.unique(entries[texts[self.texts]])


@dataclass
class _Matches:
    """Which evaluation n-grams stand in which training document of one domain: parallel arrays."""

    documents: Integers
    keys: Integers

    @classmethod
    def of(cls, index: _Index, documents: Sequence[Document], length: int, bar: Any) -> "_Matches":
        found = []
        for document in documents:
            found.append(index.find(ngram_hashes(document.words, length)))
            bar.update()
        rows = np.repeat(np.arange(len(documents)), [len(keys) for keys in found])
        return cls(rows, np.concatenate([np.empty(0, np.int64), *found]))

    def shares(self, index: _Index) -> tuple[Integers, Integers, npt.NDArray[np.float64]]:
        """Return (document, text, share of the text's n-grams in that document) of every pair that shares one."""
        repeats = index.starts[self.keys + 1] - index.starts[self.keys]
        ends = np.cumsum(repeats)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - repeats, repeats)
        texts = index.texts[np.repeat(index.starts[self.keys], repeats) + within]
        pairs = np.repeat(self.documents, repeats) * len(index.ngrams) + texts
        pairs, counts = np.unique(pairs, return_counts=True)
        documents, texts = np.divmod(pairs, max(1, len(index.ngrams)))
        return documents, texts, counts / index.ngrams[texts]


@dataclass
class Overlap:
    """What is left after the removal of overlap, and the report on it."""

    training: dict[str, list[Document]]
    heldout: dict[str, list[Document]]
    report: list[OverlapRow]


def remove_overlap(
    training: Mapping[str, list[Document]],
    heldout: Mapping[str, list[Document]],
    tasks: Mapping[str, Sequence[str]],
    parameters: OverlapParameters,
) -> Overlap:
    """Look up the items of all tasks and all held-out documents in all training documents, and part them.

    Args:
        training: documents per domain.
        heldout: documents per domain.
        tasks: texts of the items per task.
        parameters: the n-gram length and the share from which a text counts as leaked.
    """
    sets = {name: [hash_words(text) for text in texts] for name, texts in tasks.items()}
    sets |= {f"heldout/{name}": [document.words for document in documents] for name, documents in heldout.items()}
    ends = np.cumsum([len(texts) for texts in sets.values()]).tolist()
    slices = {name: slice(end - len(texts), end) for (name, texts), end in zip(sets.items(), ends, strict=True)}
    index = _Index.of([words for texts in sets.values() for words in texts], parameters.words)
    is_task = np.repeat([name in tasks for name in sets], [len(texts) for texts in sets.values()])

    searched: dict[str, _Searched] = {}
    with progress_bar("overlap", sum(map(len, training.values())), "document") as bar:
        for domain, documents in training.items():
            searched[domain] = _search(index, documents, is_task, parameters.max_share, parameters.words, bar)
    dropped = np.logical_or.reduce([result.dropped for result in searched.values()])
    report = []
    for name, texts in slices.items():
        # documents that are no longer held out have no part in what is left
        keys = index.held_by(_mask(np.arange(len(is_task))[texts], len(is_task)) & ~dropped)
        evaluation = _EvaluationSet(name, texts, too_short=int((index.ngrams[texts] == 0).sum()), keys=keys)
        report += [_report_row(evaluation, domain, result) for domain, result in searched.items()]
    return Overlap(
        {name: _unmarked(documents, searched[name].removed) for name, documents in training.items()},
        {name: _unmarked(documents, dropped[slices[f"heldout/{name}"]]) for name, documents in heldout.items()},
        report,
    )


@dataclass
class _Searched:
    """One domain's training documents against all evaluation texts.

    Attributes:
        hit, leaked, dropped: per evaluation text; `dropped` are the held-out documents that leak.
        leaks: (document, text) pairs of the task items that leak.
        removed: per training document.
        left: per n-gram of the index: whether it stands in what is left.
    """

    hit: Booleans
    leaked: Booleans
    dropped: Booleans
    leaks: tuple[Integers, Integers]
    removed: Booleans
    left: Booleans


def _search(
    index: _Index, documents: Sequence[Document], is_task: Booleans, max_share: float, length: int, bar: Any
) -> _Searched:
    matches = _Matches.of(index, documents, length, bar)
    rows, texts, shares = matches.shares(index)
    leaks = shares >= max_share
    task_leaks = leaks & is_task[texts]
    removed = _mask(rows[task_leaks], len(documents))
    return _Searched(
        hit=_mask(texts, len(is_task)),
        leaked=_mask(texts[leaks], len(is_task)),
        dropped=_mask(texts[leaks & ~removed[rows] & ~is_task[texts]], len(is_task)),
        leaks=(rows[task_leaks], texts[task_leaks]),
        removed=removed,
        left=_mask(matches.keys[~removed[matches.documents]], len(index.keys)),
    )


@dataclass(frozen=True)
class _EvaluationSet:
    """One set of evaluation texts: the slice it is of all of them, and the n-grams of what is kept of it."""

    name: str
    texts: slice
    too_short: int
    keys: Integers


def _report_row(evaluation: _EvaluationSet, domain: str, result: _Searched) -> OverlapRow:
    rows, leaked_texts = result.leaks
    texts, keys = evaluation.texts, evaluation.keys
    own = (leaked_texts >= texts.start) & (leaked_texts < texts.stop)
    return OverlapRow(
        evaluation=evaluation.name,
        domain=domain,
        texts=texts.stop - texts.start,
        too_short=evaluation.too_short,
        hit=int(result.hit[texts].sum()),
        leaked=int(result.leaked[texts].sum()),
        training_documents_removed=len(np.unique(rows[own])),
        heldout_documents_dropped=int(result.dropped[texts].sum()),
        share_left=float(result.left[keys].mean()) if len(keys) else 0.0,
    )


def _unmarked(documents: Sequence[Document], marks: Booleans) -> list[Document]:
    return [document for document, marked in zip(documents, marks, strict=True) if not marked]


def _top_bits(hashes: Hashes) -> npt.NDArray[np.uint64]:
    return hashes >> np.uint64(64 - _TABLE_BITS)


def _mask(positions: Integers, length: int) -> Booleans:
    mask = np.zeros(length, dtype=np.bool_)
    mask[positions] = True
    return mask
