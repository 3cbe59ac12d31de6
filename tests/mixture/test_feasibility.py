"""What sizes, the tokens read so far and the bounds show to be infeasible is refused, with advice that works."""

import re

import numpy as np
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.feasibility import Chunks, require_feasible
from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.parameters import OptimizeParameters

LOOP = Chunks(
    count=3,
    subject="The chunks",
    chunk_parameter="train.chunk_tokens",
    step_tokens=8,
    remedies=("lower tikmix.rounds",),
)


def budget_of(available, consumed=None, chunk=400):
    even = dict.fromkeys(available, 1 / len(available))
    read = consumed or dict.fromkeys(available, 0)
    return TokenBudget(round=0, available=available, consumed=read, chunk_tokens=chunk, current=even)


def refusal(budget, chunks=LOOP, **bounds):
    with pytest.raises(TikmixError) as error:
        require_feasible(OptimizeParameters.model_validate(bounds), budget, chunks)
    return str(error.value)


def test_chunks_longer_than_all_text_are_refused_with_what_is_there_what_is_needed_and_what_to_change():
    message = refusal(budget_of({"books": 100, "code": 250}, {"books": 10, "code": 90}), max_epochs=2)
    assert message == (
        "The chunks: 1200 tokens are to be read, and 600 may be. There are 350 tokens of text ('code' 250, 'books' "
        "100), 100 were read already, and optimize.max_epochs = 2 is how often a domain may be read. To go on, lower "
        "train.chunk_tokens to 200, or raise optimize.max_epochs to 3.72, or lower tikmix.rounds."
    )


def test_of_many_domains_a_message_names_those_with_most_text():
    message = refusal(budget_of({f"d{k}": 1 + k for k in range(30)}, chunk=1000))
    assert "'d29' 30" in message
    assert "22 more domains" in message


@pytest.mark.parametrize("follow_first", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_advised_chunk_and_the_advised_epochs_are_just_enough(seed, follow_first):
    rng = np.random.default_rng(seed)
    count, length = int(rng.integers(1, 9)), 4000
    available = {f"d{k}": int(rng.integers(200, 2000)) for k in range(count)}
    share = rng.dirichlet(np.ones(count)) * length
    consumed = dict(zip(available, share.tolist(), strict=True))
    chunks = Chunks(3, "The chunks", "train.chunk_tokens", step_tokens=8, follow_first=follow_first)
    message = refusal(budget_of(available, consumed, length), chunks, max_epochs=0.5)
    epochs = float(re.findall(r"optimize.max_epochs to (\d+(?:\.\d+)?)", message)[0])
    require_feasible(OptimizeParameters(max_epochs=epochs), budget_of(available, consumed, length), chunks)
    refusal(budget_of(available, consumed, length), chunks, max_epochs=epochs * 0.99)
    advised = re.findall(r"lower train.chunk_tokens to (\d+)", message)
    # nothing is advised where no step may be read
    for tokens, is_enough in ((int(advised[0]), True), (int(advised[0]) + 8, False)) if advised else ((8, False),):
        scale = tokens / length if follow_first else 1.0
        budget = budget_of(available, {name: read * scale for name, read in consumed.items()}, tokens)
        if is_enough:
            require_feasible(OptimizeParameters(max_epochs=0.5), budget, chunks)
        else:
            refusal(budget, chunks, max_epochs=0.5)


def test_a_bound_that_the_text_of_a_domain_cannot_fill_over_all_chunks_is_refused():
    available, least = {"books": 300, "code": 4000}, {"books": {"min": 0.5}}
    require_feasible(OptimizeParameters(bounds=least), budget_of(available), Chunks(6, "The chunks", "c"))
    message = refusal(budget_of(available), Chunks(7, "The chunks", "c"), bounds=least)
    assert message.startswith("The chunks: No mixture")
    assert "optimize.bounds.books.min = 0.5; optimize.max_epochs = 4" in message


def test_a_domain_without_text_is_named():
    assert "'code' has no training tokens" in refusal(budget_of({"books": 10, "code": 0}))
