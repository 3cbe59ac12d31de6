"""The split of a domain into training and held-out documents."""

from tikmix_pipeline.corpus.documents import Document
from tikmix_pipeline.errors import TikmixError


def split_documents(
    documents: list[Document], *, fraction: float, max_bytes: float, contiguous: bool = False
) -> tuple[list[Document], list[Document]]:
    """Split into (training, held-out) documents.

    Held out are documents of up to `fraction` of the text and up to `max_bytes`: those with the smallest keys that
    fit, or, where documents are slices of one text, a block of neighbours at a place their keys decide.

    Raises:
        TikmixError: no document fits, or none would be left to train on.
    """
    total = sum(document.size for document in documents)
    budget = min(fraction * total, max_bytes)
    heldout = _block(documents, budget / max(1, total)) if contiguous else _fitting(documents, budget)
    if not heldout or len(heldout) == len(documents):
        raise TikmixError(
            f"too small for its held-out split: {len(documents)} documents of {total / 1e3:.0f} kB, none of which fits "
            f"into the {budget / 1e3:.1f} kB to be held out. Add documents (a long text can be cut into several), or "
            "raise corpus.heldout_fraction or corpus.heldout_max_kilobytes."
        )
    return (
        [document for row, document in enumerate(documents) if row not in heldout],
        [document for row, document in enumerate(documents) if row in heldout],
    )


def _fitting(documents: list[Document], budget: float) -> set[int]:
    """Return the rows to hold out, in the order of their keys; once half is full, none is passed over any more.

    Passing over documents that do not fit favours short ones, so it ends as soon as there is enough.
    """
    rows: set[int] = set()
    filled = 0
    for row in sorted(range(len(documents)), key=lambda row: documents[row].split_key):
        if filled + documents[row].size <= budget:
            rows.add(row)
            filled += documents[row].size
        elif filled >= budget / 2:
            break
    return rows


def _block(documents: list[Document], share: float) -> set[int]:
    count = int(share * len(documents))
    start = sum(document.split_key for document in documents) % (len(documents) - count + 1)
    return set(range(start, start + count))
