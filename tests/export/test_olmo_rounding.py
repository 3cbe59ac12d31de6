"""What OLMo-core's rounding would have read once more is told before it is trained on."""

import pytest
from export_examples import BATCH, CONTEXT, one_phase

from tikmix_pipeline.export.olmo import requested_tokens
from tikmix_pipeline.export.registry import write
from tikmix_pipeline.export.schedule import Domain


def notes(sizes: dict[str, float | None], weights: dict[str, float], chunk_tokens: int, **domain: float) -> str:
    domains = [Domain(name, name, size, None, **domain) for name, size in sizes.items()]
    return " ".join(write("olmo_core", one_phase(weights, domains, chunk_tokens=chunk_tokens)).notes)


@pytest.mark.parametrize(("chunk", "requested"), [(10 * BATCH, 10), (10 * BATCH + CONTEXT, 10), (BATCH - 1, 1)])
def test_whole_batches_are_requested(chunk, requested):
    schedule = one_phase({"web": 1.0}, chunk_tokens=chunk)
    assert requested_tokens(schedule) == requested * BATCH
    assert f"requested_tokens={requested * BATCH}," in " ".join(write("olmo_core", schedule).notes)


def test_a_chunk_that_is_not_of_whole_batches_is_told():
    assert "are whole batches" in notes({"web": None}, {"web": 1.0}, 10 * BATCH + CONTEXT)
    assert "are whole batches" not in notes({"web": None}, {"web": 1.0}, 10 * BATCH)


def test_a_domain_at_its_limit_that_rounding_takes_into_one_epoch_more_is_told_by_its_tokens():
    sizes, weights = {"books": 2 * BATCH, "web": 20 * BATCH}, {"books": 0.2, "web": 0.8}
    assert "one epoch more" not in notes(sizes, weights, 10 * BATCH, max_epochs=1)
    weights = {"books": 0.200001, "web": 0.799999}
    # int(0.200001 * 81920) is the limit itself
    assert "one epoch more" not in notes(sizes, weights, 10 * BATCH, max_epochs=1)
    sizes = {"books": 200 * BATCH, "web": 2000 * BATCH}
    assert "one epoch more, by so many tokens: books 8." in notes(sizes, weights, 1000 * BATCH, max_epochs=1)


def test_a_run_of_all_text_whose_last_steps_would_be_of_a_second_epoch_is_told():
    """Each file's rest is shorter than a sequence, so a sequence is missing for the tenth batch."""
    sizes = {"books": 2 * BATCH + 100, "web": 8 * BATCH - 100}
    weights = {name: size / (10 * BATCH) for name, size in sizes.items()}
    told = notes(sizes, weights, 10 * BATCH)
    assert "All text makes 319 whole sequences, and 320 are requested" in told
    assert f"Give requested_tokens={9 * BATCH}, and train for as many." in told
    assert "second epoch" not in notes(sizes, weights, 9 * BATCH)
    assert "second epoch" not in notes(sizes | {"web": None}, weights, 10 * BATCH)


def test_passes_over_a_domain_count_as_often_as_they_are_made():
    sizes = {"books": 2 * BATCH, "web": 8 * BATCH}
    assert "second epoch" not in notes(sizes, {"books": 0.4, "web": 0.6}, 10 * BATCH, max_epochs=2)
