"""Contamination: evaluation text that also stands in the training text.

Every evaluation text (a task's item or a held-out document) is looked up in every training document by its distinct
word n-grams. It counts as *hit* by a domain when at least one of them stands there, and as *leaked* when at least
`max_share` of them stand in one document. Then
- training documents that leak task items are removed,
- held-out documents that leak into what is left are no longer held out (nor trained on), and
- the report says how much of each evaluation set still stands in the training text.

Items of a task may share their wording with a domain at large, as boilerplate does; where a domain would lose more than
`max_removed` of its documents to them, nothing is removed and the run ends with an example.

Texts shorter than one n-gram are not looked up; the report counts them. Cost: one table look-up per training word, plus
a sorted search for the few n-grams that pass it and a sparse product to count those that text and document share.

Axes: D training documents of a domain, T evaluation texts, G distinct n-grams of all evaluation texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from tikmix_pipeline.corpus.documents import Document, Hashes, hash_fine_words, ngram_hashes, words_of
from tikmix_pipeline.corpus.records import OverlapRow
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.parameters.corpus import OverlapParameters
from tikmix_pipeline.progress import progress_bar

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

_TABLE_BITS = 24


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
    """Look up the items of tasks and the held-out documents of domains in all training documents, and part them.

    Raises:
        TikmixError: a domain loses more than `max_removed` of its documents to the items of tasks; the message names
            the domain, the task that most of them go to, and the words that most of these have in common.
    """
    sets = {name: [hash_fine_words(text) for text in texts] for name, texts in tasks.items()}
    sets |= {f"heldout/{name}": [document.fine_words for document in documents] for name, documents in heldout.items()}
    ends = np.cumsum([len(texts) for texts in sets.values()]).tolist()
    slices = {name: slice(end - len(texts), end) for (name, texts), end in zip(sets.items(), ends, strict=True)}
    index = _Index.of([words for texts in sets.values() for words in texts], parameters.words)
    is_task_T = np.repeat([name in tasks for name in sets], [len(texts) for texts in sets.values()])

    searched: dict[str, _Searched] = {}
    with progress_bar("overlap", sum(map(len, training.values())), "document") as bar:
        for domain, documents in training.items():
            held_DG = _held_by_documents(index, documents, parameters.words, bar)
            result = searched[domain] = _search(index, held_DG, is_task_T, parameters.max_share)
            if result.removed_D.sum() > parameters.max_removed * len(documents):
                raise _too_much_removed(index, held_DG, result, domain, tasks, parameters)
    dropped_T = np.logical_or.reduce([result.dropped_T for result in searched.values()])
    report = []
    for name, texts in slices.items():
        # documents that are no longer held out have no part in what is left
        kept = np.arange(len(is_task_T))[texts][~dropped_T[texts]]
        ngrams = np.unique(index.held_TG[kept].indices)
        report += [_report_row(index, name, texts, ngrams, domain, result) for domain, result in searched.items()]
    return Overlap(
        {name: _unmarked(documents, searched[name].removed_D) for name, documents in training.items()},
        {name: _unmarked(documents, dropped_T[slices[f"heldout/{name}"]]) for name, documents in heldout.items()},
        report,
    )


@dataclass
class _Index:
    """The distinct n-grams of all evaluation texts, sorted, and which text holds which."""

    ngrams_G: Hashes
    held_TG: csr_array
    held_GT: csr_array
    lengths_T: Integers
    """Distinct n-grams per text."""
    table: Booleans = field(repr=False)
    """True at the top bits of every n-gram: most words of the training text are ruled out by one look-up."""

    @classmethod
    def of(cls, texts: Sequence[Hashes], length: int) -> "_Index":
        hashes = [np.unique(ngram_hashes(words, length)) for words in texts]
        ngrams_G, positions = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]), return_inverse=True)
        table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
        table[_top_bits(ngrams_G)] = True
        lengths_T = np.array([len(own) for own in hashes], dtype=np.int64)
        held_TG = _incidence(positions, lengths_T, len(ngrams_G))
        return cls(ngrams_G, held_TG, held_TG.T.tocsr(), lengths_T, table)

    def find(self, hashes: Hashes) -> Integers:
        """Return the distinct positions in `ngrams_G` of the hashes that stand there."""
        candidates = np.unique(hashes[self.table[_top_bits(hashes)]])
        positions = np.minimum(np.searchsorted(self.ngrams_G, candidates), len(self.ngrams_G) - 1)
        found: Integers = positions[self.ngrams_G[positions] == candidates]
        return found


def _held_by_documents(index: _Index, documents: Sequence[Document], length: int, bar: Any) -> csr_array:
    found = []
    for document in documents:
        found.append(index.find(ngram_hashes(document.fine_words, length)))
        bar.update()
    positions = np.concatenate([np.empty(0, np.int64), *found])
    return _incidence(positions, np.array([len(own) for own in found]), len(index.ngrams_G))


def _incidence(positions: Integers, counts: Integers, width: int) -> csr_array:
    """Return a matrix of zeros with a one at each position; row r holds the next `counts[r]` of them."""
    return csr_array((np.ones_like(positions), positions, np.append(0, np.cumsum(counts))), shape=(len(counts), width))


@dataclass
class _Searched:
    """One domain's training documents against all evaluation texts."""

    hit_T: Booleans
    leaked_T: Booleans
    dropped_T: Booleans
    """Whether a text is a held-out document that leaks into what is left."""
    leaks: tuple[Integers, Integers]
    """(document, text) pairs of the task items that leak."""
    removed_D: Booleans
    """Whether a training document is removed."""
    left_G: Booleans
    """Whether an n-gram stands in what is left."""


def _search(index: _Index, held_DG: csr_array, is_task_T: Booleans, max_share: float) -> _Searched:
    shared_DT = (held_DG @ index.held_GT).tocoo()
    rows, texts = shared_DT.coords
    leaks = shared_DT.data / index.lengths_T[texts] >= max_share
    task_leaks = leaks & is_task_T[texts]
    removed_D = _mask(rows[task_leaks], held_DG.shape[0])
    return _Searched(
        hit_T=_mask(texts, len(is_task_T)),
        leaked_T=_mask(texts[leaks], len(is_task_T)),
        dropped_T=_mask(texts[leaks & ~removed_D[rows] & ~is_task_T[texts]], len(is_task_T)),
        leaks=(rows[task_leaks], texts[task_leaks]),
        removed_D=removed_D,
        left_G=_mask(held_DG[np.flatnonzero(~removed_D)].indices, len(index.ngrams_G)),
    )


def _too_much_removed(
    index: _Index,
    held_DG: csr_array,
    result: _Searched,
    domain: str,
    tasks: Mapping[str, Sequence[str]],
    parameters: OverlapParameters,
) -> TikmixError:
    rows, texts = result.leaks
    ends = np.cumsum([len(of_task) for of_task in tasks.values()])  # tasks stand in front of all held-out documents
    task_of_leak = np.searchsorted(ends, texts, side="right")
    removed = [len(np.unique(rows[task_of_leak == number])) for number in range(len(tasks))]
    task, items = list(tasks.items())[int(np.argmax(removed))]
    own = task_of_leak == np.argmax(removed)
    counts_G = np.asarray(held_DG[np.unique(rows[own])].sum(axis=0)).ravel()
    counts_G = counts_G * _mask(index.held_TG[np.unique(texts[own])].indices, len(index.ngrams_G))
    example = _words_of_ngram(items, index.ngrams_G[int(np.argmax(counts_G))], parameters.words)
    return TikmixError(
        f"corpus.tasks.{task}: its items would remove {max(removed)} of the {held_DG.shape[0]} training documents of "
        f"corpus.domains.{domain} (all tasks together {int(result.removed_D.sum())}), more than "
        f"corpus.overlap.max_removed = {parameters.max_removed:g} of them. {int(counts_G.max())} of these hold "
        f"{example!r}. If that is boilerplate, take it out of the items, or raise corpus.overlap.max_share or "
        "corpus.overlap.words; if the domain is made of the task's text, leave it out, or raise "
        "corpus.overlap.max_removed."
    )


def _words_of_ngram(texts: Sequence[str], ngram: np.uint64, length: int) -> str:
    for text in texts:
        found = np.flatnonzero(ngram_hashes(hash_fine_words(text), length) == ngram)
        if len(found):
            return " ".join(words_of(text)[int(found[0]) : int(found[0]) + length])
    return ""


def _report_row(index: _Index, name: str, texts: slice, ngrams: Integers, domain: str, result: _Searched) -> OverlapRow:
    """Return the row of one evaluation set: the slice it is of all texts, and the n-grams of what is kept of it."""
    rows, leaked_texts = result.leaks
    own = (leaked_texts >= texts.start) & (leaked_texts < texts.stop)
    return OverlapRow(
        evaluation=name,
        domain=domain,
        texts=texts.stop - texts.start,
        too_short=int((index.lengths_T[texts] == 0).sum()),
        hit=int(result.hit_T[texts].sum()),
        leaked=int(result.leaked_T[texts].sum()),
        training_documents_removed=len(np.unique(rows[own])),
        heldout_documents_dropped=int(result.dropped_T[texts].sum()),
        share_left=float(result.left_G[ngrams].mean()) if len(ngrams) else 0.0,
    )


def _unmarked(documents: Sequence[Document], marks: Booleans) -> list[Document]:
    return [document for document, marked in zip(documents, marks, strict=True) if not marked]


def _top_bits(hashes: Hashes) -> npt.NDArray[np.uint64]:
    return hashes >> np.uint64(64 - _TABLE_BITS)


def _mask(positions: Integers, length: int) -> Booleans:
    mask = np.zeros(length, dtype=np.bool_)
    mask[positions] = True
    return mask
