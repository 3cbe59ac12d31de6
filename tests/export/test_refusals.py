"""What a trainer could not read is refused before it is written, with the domain's name."""

from dataclasses import replace

import pytest
from export_examples import BATCH, example_domains, example_schedule, one_phase

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.olmo import repetition_ratios
from tikmix_pipeline.export.registry import write
from tikmix_pipeline.export.schedule import Domain, Phase
from tikmix_pipeline.export.syntax import shares_of


def _with_path(path: str):
    first, *rest = example_domains()
    return example_schedule(domains=[replace(first, path=path), *rest])


@pytest.mark.parametrize("trainer", ["megatron", "nemo"])
def test_a_path_with_a_blank_is_refused_where_lists_are_split_at_blanks(trainer):
    with pytest.raises(TikmixError, match=r"splits its list of data at white space, .* domain 'web' .*'my data/web'"):
        write(trainer, _with_path("my data/web"))


@pytest.mark.parametrize("trainer", ["olmo_core", "levanter", "nanotron", "llm_foundry", "energon", "hf_datasets"])
def test_a_path_with_a_blank_is_kept_where_it_is_quoted(trainer):
    assert any('"my data/web"' in text for text in write(trainer, _with_path("my data/web")).files.values())


@pytest.mark.parametrize("trainer", ["megatron", "nemo", "nemo_automodel", "gpt_neox"])
@pytest.mark.parametrize(
    ("path", "message"), [("data/web.bin", r"prefix of a domain's \.bin"), ("1e3", r"for a weight")]
)
def test_a_path_that_is_no_prefix_is_refused(trainer, path, message):
    with pytest.raises(TikmixError, match=message):
        write(trainer, _with_path(path))


@pytest.mark.parametrize("trainer", ["hf_datasets", "torchtitan_documents", "llama_factory", "ms_swift"])
def test_documents_of_unknown_length_are_refused_where_documents_are_drawn(trainer):
    first, *rest = example_domains()
    schedule = example_schedule(domains=[replace(first, mean_tokens_per_document=None), *rest])
    with pytest.raises(TikmixError, match=r"mean_tokens_per_document of the domain 'web' is not known"):
        write(trainer, schedule)


def test_a_domain_without_weight_may_be_of_unknown_length():
    first, *rest = example_domains()
    schedule = example_schedule(
        domains=[replace(first, mean_tokens_per_document=None), *rest], phases=[Phase(0, 0, {"code": 1.0})]
    )
    assert write("hf_datasets", schedule).realised.per_token == {"code": 1.0}


@pytest.mark.parametrize("name", ["web,code", "${web}"])
def test_llama_factory_refuses_a_name_that_it_would_split_or_fill_in(name):
    domains = [Domain(name, "data/a", None, 100.0), Domain("mail", "data/b", None, 100.0)]
    with pytest.raises(TikmixError, match=r"LLaMA-Factory splits .* a domain is named"):
        write("llama_factory", one_phase({name: 0.5, "mail": 0.5}, domains))


def test_ms_swift_refuses_a_path_that_would_pass_for_an_option():
    with pytest.raises(TikmixError, match=r"'--model', for an option. Write it as './--model'"):
        write("ms_swift", _with_path("--model"))


def test_gpt_neox_counts_to_254():
    fits = {f"d{k:03}": 1 / 254 for k in range(254)}
    assert len(write("gpt_neox", one_phase(fits)).realised.stated) == 254
    with pytest.raises(TikmixError, match=r"at most 254 data sets, and the mixture has 255"):
        write("gpt_neox", one_phase({f"d{k:03}": 1 / 255 for k in range(255)}))


def test_megatron_counts_to_32766(monkeypatch):
    monkeypatch.setattr(
        "tikmix_pipeline.export.megatron.shares_of", lambda weights: dict.fromkeys(map(str, range(32767)))
    )
    monkeypatch.setattr("tikmix_pipeline.export.megatron._check_prefixes", lambda *_, **__: None)
    with pytest.raises(TikmixError, match=r"at most 32766 data sets, and the mixture has 32767"):
        write("megatron", example_schedule())


@pytest.mark.parametrize("trainer", ["olmo_core", "olmix"])
def test_a_share_that_the_text_cannot_fill_is_refused(trainer):
    domain = Domain("books", "data/books", 1e6, None, 500_000, max_epochs=2)
    schedule = one_phase({"books": 1.0}, [domain], chunk_tokens=200 * BATCH)
    with pytest.raises(
        TikmixError, match=r"domain 'books': the chunk asks for 1638400 .* leaves 1500000 of its 1000000"
    ):
        write(trainer, schedule)


def test_a_share_at_its_limit_is_filled():
    domain = Domain("books", "data/books", 100 * BATCH, None, 50 * BATCH, max_epochs=2)
    schedule = one_phase({"books": 1.0}, [domain], chunk_tokens=150 * BATCH)
    assert repetition_ratios(schedule, shares_of({"books": 1.0}), "OLMo-core") == {"books": 1.5}


def test_a_small_share_at_its_limit_that_was_rounded_up_when_it_was_recorded_is_filled():
    """1/81 of the chunk may be read, and the recorded 0.012346 is 26 millionths of that more."""
    domain, web = Domain("books", "data/books", 1000 / 81, None, max_epochs=1), Domain("web", "data/web", None, None)
    weights = {"books": 0.012346, "web": 0.987654}
    schedule = one_phase(weights, [domain, web], chunk_tokens=1000, batch_tokens=256)
    ratios = repetition_ratios(schedule, shares_of(weights), "OLMo-core")
    assert float(ratios["books"]) == pytest.approx(1.000027, abs=1e-6)
    more = weights | {"books": 0.012348, "web": 0.987652}
    with pytest.raises(TikmixError, match=r"cannot fill the share of the domain 'books'"):
        repetition_ratios(schedule, shares_of(more), "OLMo-core")


def test_a_chunk_leaves_to_later_ones_what_they_would_take_under_the_same_mixture():
    """Of 300 batches that remain the chunk is half, and so is its part of the 150 that may still be read of `books`."""
    domain = Domain("books", "data/books", 100 * BATCH, None, 50 * BATCH, max_epochs=2)
    rest = {"chunk_tokens": 150 * BATCH, "remaining_tokens": 300 * BATCH}
    weights = {"books": 0.5, "web": 0.5}
    schedule = one_phase(weights, [domain, Domain("web", "data/web", None, None)], **rest)
    assert repetition_ratios(schedule, shares_of(weights), "OLMo-core") == {"books": 1, "web": None}
    longer = one_phase({"books": 1.0}, [domain], chunk_tokens=100 * BATCH, remaining_tokens=120 * BATCH)
    assert repetition_ratios(longer, shares_of({"books": 1.0}), "OLMo-core") == {"books": 1.25}
    with pytest.raises(TikmixError, match=r"leaves 614400 of its 819200, the chunk being 0.5 of what is to come"):
        write("olmo_core", one_phase({"books": 1.0}, [domain], **rest))


def test_a_ratio_is_what_the_limit_leaves_or_else_what_is_needed():
    domains = [
        Domain("capped", "a", 1000 * BATCH, None, 0, max_epochs=4),
        Domain("open", "b", 100 * BATCH, None),
        Domain("unknown", "c", None, None),
    ]
    schedule = one_phase({"capped": 0.25, "open": 0.5, "unknown": 0.25}, domains, chunk_tokens=1000 * BATCH)
    ratios = repetition_ratios(schedule, shares_of(schedule.last.weights), "OLMo-core")
    assert ratios == {"capped": 4, "open": 5, "unknown": None}
    notes = " ".join(write("olmo_core", schedule).notes)
    assert "size is not known: unknown" in notes
    assert "no limit on epochs is set: open 5 times" in notes


def test_levanter_refuses_blocks_without_room():
    schedule = one_phase({f"d{k:02}": 1 / 20 for k in range(20)}, chunk_tokens=BATCH)
    with pytest.raises(TikmixError, match=r"here of 32, and 20 domains have weight"):
        write("levanter", schedule)


@pytest.mark.parametrize("name", ["run", "index", "Unnamed"])
def test_olmix_refuses_a_domain_that_it_would_not_take_for_one(name):
    with pytest.raises(TikmixError, match=f"does not take the column '{name}' for a domain"):
        write("olmix", one_phase({name: 0.5, "web": 0.5}))
