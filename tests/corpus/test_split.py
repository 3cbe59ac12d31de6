import pytest
from corpus_examples import documents, random_text

from tikmix_pipeline.corpus.documents import Document
from tikmix_pipeline.corpus.split import split_documents
from tikmix_pipeline.errors import TikmixError

DOCUMENTS = documents(*(random_text(seed, 40) for seed in range(100)))


def size(side: list[Document]) -> int:
    return sum(document.size for document in side)


def test_every_document_is_on_exactly_one_side():
    train, heldout = split_documents(DOCUMENTS, fraction=0.1, max_bytes=1e9)
    assert sorted([*train, *heldout], key=DOCUMENTS.index) == DOCUMENTS
    assert not {document.text for document in train} & {document.text for document in heldout}


def test_the_held_out_share_is_the_fraction_of_the_text():
    _, heldout = split_documents(DOCUMENTS, fraction=0.2, max_bytes=1e9)
    assert 0.17 * size(DOCUMENTS) < size(heldout) <= 0.2 * size(DOCUMENTS)


def test_the_held_out_text_is_bounded():
    _, heldout = split_documents(DOCUMENTS, fraction=0.4, max_bytes=1000)
    assert 0 < size(heldout) <= 1000


def test_the_side_of_a_document_does_not_depend_on_the_order():
    shuffled = DOCUMENTS[50:] + DOCUMENTS[:50][::-1]
    sides = [
        {document.text for document in split_documents(order, fraction=0.1, max_bytes=1e9)[1]}
        for order in (DOCUMENTS, shuffled)
    ]
    assert sides[0] == sides[1]


def test_documents_too_long_to_hold_out_are_passed_over():
    long = documents(*(random_text(seed, 4000) for seed in range(3)))
    _, heldout = split_documents([*DOCUMENTS, *long], fraction=0.05, max_bytes=1e9)
    assert heldout
    assert not set(long) & set(heldout)


def test_a_contiguous_split_holds_out_one_block():
    _, heldout = split_documents(DOCUMENTS, fraction=0.1, max_bytes=1e9, contiguous=True)
    start = DOCUMENTS.index(heldout[0])
    assert len(heldout) == 10
    assert heldout == DOCUMENTS[start : start + 10]


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_a_domain_too_small_for_its_held_out_split_is_refused(count: int, contiguous: bool):
    with pytest.raises(TikmixError, match=r"too small for its held-out split: .*raise corpus.heldout_fraction"):
        split_documents(DOCUMENTS[:count], fraction=0.1, max_bytes=1e9, contiguous=contiguous)
