import numpy as np
import torch
from influence_oracle import random_batches

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.influence.curvature.fit_steps import plan_steps
from tikmix_pipeline.influence.curvature.head_batch import draw_uniform
from tikmix_pipeline.influence.gradients import deal_into_chunks, sequences

OWN = random_batches(1, batches=3, sequences=4)
OTHER = random_batches(2, batches=2, sequences=5)


def steps_of(batches, chunks):
    return plan_steps(batches, chunks, torch.Generator().manual_seed(0))


def drawn_by_sequence(steps) -> list[tuple[bytes, bytes]]:
    """Every sequence that is fitted on, with what decides its labels."""
    found = []
    for step in steps:
        if step.uniform_N is not None:
            rows = list(sequences([step.batch]))
            parts = step.uniform_N.split([int(loss_S.sum()) for _, loss_S in rows])
            found += [(row[0].tobytes(), part.numpy().tobytes()) for row, part in zip(rows, parts, strict=True)]
    return sorted(found)


def rows_of(batches) -> list[bytes]:
    return sorted(tokens_S.tobytes() for tokens_S, _ in sequences(batches))


def test_without_gradients_the_steps_are_the_batches_and_what_was_drawn_for_each():
    generator = torch.Generator().manual_seed(0)
    steps = steps_of(OWN, [])
    assert [step.batch for step in steps] == OWN
    assert all(torch.equal(step.uniform_N, draw_uniform(step.batch.loss_tokens, generator)) for step in steps)


def test_every_token_has_the_label_that_it_has_alone_whichever_chunk_it_is_in():
    chunks = deal_into_chunks([*OTHER, *OWN[1:]], 3)
    assert drawn_by_sequence(steps_of(OWN, chunks)) == drawn_by_sequence(steps_of(OWN, []))


def test_every_chunk_passes_whole_and_the_fit_s_own_text_once():
    chunks = deal_into_chunks([*OTHER, *OWN[1:]], 3)
    steps = steps_of(OWN, chunks)
    for number, chunk in enumerate(chunks):
        of = [step for step in steps if step.chunk == number]
        assert rows_of([step.batch for step in of]) == rows_of(chunk)
        assert [step.begins_chunk for step in of] == [True] + [False] * (len(of) - 1)
        assert [step.ends_chunk for step in of] == [False] * (len(of) - 1) + [True]
    assert rows_of([step.batch for step in steps if step.uniform_N is not None]) == rows_of(OWN)
    assert rows_of([step.batch for step in steps if step.chunk is None]) == rows_of(OWN[:1])


def test_text_that_occurs_twice_is_fitted_on_as_often_as_the_fit_has_it():
    (batch,) = random_batches(3, batches=1, sequences=1)
    twice = TokenBatch(np.repeat(batch.tokens_BS, 2, 0), np.repeat(batch.loss_BS, 2, 0))
    steps = steps_of([twice], deal_into_chunks([twice, batch], 3))
    assert [step.uniform_N is not None for step in steps] == [True, True, False]
