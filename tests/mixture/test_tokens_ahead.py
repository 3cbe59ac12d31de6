"""How far `optimize.max_epochs` looks: to the end of the chunk, or to that of a run whose length is known."""

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.mixture.bounds import Limit
from tikmix_pipeline.mixture.direct import decide_direct
from tikmix_pipeline.mixture.recording import keep_mixture
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.simplex import by_name
from tikmix_pipeline.parameters import OptimizeParameters, ReweightParameters, TikmixParameters

CHUNK = 1000
AVAILABLE = {"books": 250, "code": 10_000, "web": 10_000}
PRIOR = {"books": 0.1, "code": 0.45, "web": 0.45}
BOOKS_HELP_MOST = pd.DataFrame(
    [
        {"task": task, "domain": domain, "influence": influence, "stderr": 0.1}
        for task in ("reading", "recall")
        for domain, influence in {"books": 1.0, "code": 0.2, "web": 0.1}.items()
    ]
)
OPTIMIZE = OptimizeParameters(method="paper", entropy=0.0)


def budget_after(number=0, read=None, planned=None, current=PRIOR):
    """Return the budget at the end of a round, `planned` being how many chunks are known to come."""
    remaining = {} if planned is None else {"remaining_tokens": planned * CHUNK}
    consumed = read or {domain: PRIOR[domain] * CHUNK for domain in PRIOR}
    return TokenBudget(
        round=number, available=AVAILABLE, consumed=consumed, chunk_tokens=CHUNK, current=current, **remaining
    )


def decided(budget, optimize=OPTIMIZE):
    prior = MixtureRecord(round=0, strategy="prior", chunk_tokens=CHUNK, weights=PRIOR, tokens={}, epochs={})
    decision = decide_direct(budget, prior, optimize, TikmixParameters(), [BOOKS_HELP_MOST])
    return by_name(budget.domains, decision.weights_K), decision


def weights_of_books(rounds, planned):
    """Decide round by round, each reading what the last one decided; return the weights, and the epochs at the end."""
    read, weights, found = {domain: PRIOR[domain] * CHUNK for domain in PRIOR}, PRIOR, []
    for number in range(rounds - 1):
        left = None if planned is None else max(1, planned - number - 1)
        weights, _ = decided(budget_after(number, read, left, weights))
        read = {domain: read[domain] + weights[domain] * CHUNK for domain in read}
        found.append(weights["books"])
    return found, read["books"] / AVAILABLE["books"]


def test_by_the_end_of_the_chunk_alone_the_first_decision_takes_all_that_may_be_read():
    found, epochs = weights_of_books(rounds=4, planned=None)
    assert found == pytest.approx([0.9, 0.0, 0.0], abs=1e-6)
    assert epochs == pytest.approx(4)


def test_with_a_plan_every_round_keeps_as_much_for_those_to_come():
    found, epochs = weights_of_books(rounds=4, planned=4)
    assert found == pytest.approx([0.3, 0.3, 0.3], abs=1e-6)
    assert epochs == pytest.approx(4)


def test_what_is_planned_beyond_the_rounds_at_hand_is_still_there():
    _, epochs = weights_of_books(rounds=4, planned=10)
    assert epochs == pytest.approx(0.4 + 3 * 3.6 / 9)


def test_one_chunk_that_is_known_to_come_is_the_coming_chunk_to_the_last_bit():
    (weights, plain), (planned_weights, planned) = decided(budget_after()), decided(budget_after(planned=1))
    assert planned_weights == weights
    assert planned.to_record("direct", 1).to_json() == plain.to_record("direct", 1).to_json()


def test_the_bound_says_that_it_is_one_of_repetition():
    bounds = budget_after(planned=9).bounds(OPTIMIZE)
    assert bounds.upper[0] == Limit(900 / 9000, "repetition", "optimize.max_epochs")
    held = decided(budget_after(planned=9))[1].binding
    assert ("books", "upper", "repetition") in {(one.name, one.kind, one.reason) for one in held}


@pytest.mark.parametrize("seed", range(10))
def test_a_mixture_within_the_bounds_can_be_kept_to_the_end(seed):
    """What is kept from chunk to chunk is the decided mixture itself, though each looks at one chunk less."""
    rng = np.random.default_rng(seed)
    names = [f"d{k}" for k in range(6)]
    available = dict(zip(names, rng.uniform(200, 2000, 6).tolist(), strict=True))
    read, left = dict.fromkeys(names, 0.0), 5
    rounding = ReweightParameters(decimals=12)
    weights = dict(zip(names, rng.dirichlet(np.ones(6)).tolist(), strict=True))
    kept = MixtureRecord(round=0, strategy="direct", chunk_tokens=CHUNK, weights=weights, tokens={}, epochs={})
    for number in range(5):
        told = {"available": available, "consumed": read, "chunk_tokens": CHUNK, "current": kept.weights}
        budget = TokenBudget(round=number, remaining_tokens=(left - number) * CHUNK, **told)
        after = keep_mixture(kept, budget, OptimizeParameters(method="paper", max_epochs=1.5), rounding)
        if number:
            assert after.weights == pytest.approx(kept.weights, abs=1e-9)
        kept = after
        read = {name: read[name] + kept.weights[name] * CHUNK for name in names}
    assert all(read[name] <= 1.5 * available[name] * (1 + 1e-9) for name in names)


def test_what_a_chunk_reads_is_told_of_the_chunk():
    prior = MixtureRecord(round=0, strategy="direct", chunk_tokens=CHUNK, weights=PRIOR, tokens={}, epochs={})
    records = [
        keep_mixture(prior, budget_after(planned=planned), OPTIMIZE, ReweightParameters()) for planned in (None, 2)
    ]
    assert [one.tokens for one in records] == [{"books": 100, "code": 450, "web": 450}] * 2
    assert [one.epochs["books"] for one in records] == [200 / 250] * 2


def test_a_budget_without_a_plan_is_written_as_before():
    assert "remaining_tokens" not in budget_after().to_json()
    assert TokenBudget.from_json(budget_after(planned=3).to_json()).tokens_ahead == 3 * CHUNK
    assert TokenBudget.from_json(budget_after().to_json()).tokens_ahead == CHUNK
