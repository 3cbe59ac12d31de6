import math
from decimal import Decimal

import pytest
from export_examples import one_phase
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.python_code import by_documents
from tikmix_pipeline.export.schedule import Domain
from tikmix_pipeline.export.syntax import plain_decimal, shares_of, text_of

weights = st.dictionaries(st.text("abcdef", min_size=1), st.floats(0, 1), min_size=1, max_size=30).filter(
    lambda weights: sum(weights.values()) > 1e-3
)


@given(weights)
@settings(deadline=None)
def test_texts_sum_to_exactly_one_by_name_without_zeros(raw):
    texts = {name: text_of(share) for name, share in shares_of(raw).items()}
    assert sum(map(Decimal, texts.values())) == 1
    assert list(texts) == sorted(texts)
    assert all("e" not in text.lower() and "." in text and Decimal(text) > 0 for text in texts.values())
    whole = math.fsum(raw.values())
    assert all(abs(float(texts.get(name, "0")) - weight / whole) < 1.1e-9 for name, weight in raw.items())


def test_texts_are_as_short_as_they_can_be():
    assert [text_of(plain_decimal(value)) for value in (1.0, 0.5, 0.00001, 1e-9, 10.0)] == [
        "1.0",
        "0.5",
        "0.00001",
        "0.000000001",
        "10.0",
    ]


def test_a_long_document_counts_for_many_short_ones():
    domains = [Domain("books", "b", None, 9000.0), Domain("chat", "c", None, 100.0)]
    documents, realised = by_documents(one_phase({"books": 0.9, "chat": 0.1}, domains), "interleave_datasets")
    stated = {"books": 0.090909090909, "chat": 0.909090909091}
    assert {name: float(share) for name, share in documents.items()} == realised.stated == stated
    assert realised.per_token == pytest.approx({"books": 0.9, "chat": 0.1}, abs=1e-9)


def test_documents_of_unknown_length_are_refused():
    domains = [Domain("books", "b", None, 9.0), Domain("chat", "c", None, None)]
    with pytest.raises(TikmixError, match=r"mean_tokens_per_document of the domain 'chat' is not known"):
        by_documents(one_phase({"books": 0.9, "chat": 0.1}, domains), "interleave_datasets")
