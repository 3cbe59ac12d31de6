"""What a trainer reads is what was decided."""

import re
from decimal import Decimal

import pytest
from export_examples import example_schedule, one_phase, schedules
from hypothesis import HealthCheck, given, settings
from readers import READERS, levanter_phases

from tikmix_pipeline.export.registry import TRAINERS, write
from tikmix_pipeline.export.schedule import Domain

EXACT = [name for name in TRAINERS if name != "levanter"]
RANDOM = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])


def test_every_trainer_has_a_reader():
    assert set(READERS) == set(TRAINERS)


@pytest.mark.parametrize("trainer", EXACT)
@given(schedule=schedules())
@RANDOM
def test_weights_come_back_in_shares_of_tokens(trainer, schedule):
    exported = write(trainer, schedule)
    stated = READERS[trainer](exported.files, schedule)
    assert stated == exported.realised.stated
    in_tokens = dict(stated)
    if exported.unit == "documents":
        in_tokens = {name: share * schedule.domain(name).mean_tokens_per_document for name, share in stated.items()}
    whole = sum(in_tokens.values())
    for name, weight in schedule.last.weights.items():
        assert abs(in_tokens.get(name, 0.0) / whole - weight) < 1e-6
        assert abs(exported.realised.per_token.get(name, 0.0) - weight) < 1e-6


@pytest.mark.parametrize("trainer", TRAINERS)
@given(schedule=schedules(most_domains=8))
@RANDOM
def test_stated_weights_are_positive_in_order_and_sum_to_exactly_one(trainer, schedule):
    stated = write(trainer, schedule).realised.stated
    assert all(weight > 0 for weight in stated.values())
    assert list(stated) == sorted(stated)
    assert sum(Decimal(repr(weight)) for weight in stated.values()) == 1


@given(schedule=schedules(most_domains=8))
@RANDOM
def test_levanter_realises_what_it_is_said_to(schedule):
    exported = write("levanter", schedule)
    phases = levanter_phases(exported.files, schedule)
    step, shares = phases[-1]
    assert shares == exported.realised.per_token
    assert step == exported.realised.start_step
    assert exported.realised.start_tokens == step * schedule.batch_tokens
    shifted = [step != phase.start_step for (step, _), phase in zip(phases, schedule.phases, strict=True)]
    assert sum(" starts at step " in note for note in exported.notes) == sum(shifted)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_numbers_have_no_exponents(trainer):
    exported = write(trainer, one_phase({"web": 0.99998, "code": 0.00002}, EXPONENT_DOMAINS))
    assert not any(re.search(r"\d[eE][-+]?\d", text) for text in exported.files.values())


@pytest.mark.parametrize("trainer", TRAINERS)
def test_names_and_paths_of_any_printable_kind_come_back(trainer):
    names = ['say "hi"', "a: b", "# no comment", "yes", "1.5", "back\\slash", "öl, 油", "{x}", "it's", "- dash"]
    if trainer == "llama_factory":  # whose names are split at commas: test_refusals.py
        names.remove("öl, 油")
    domains = [Domain(name, f"data/{k}'\"#:,\\{{ü", None, 100.0) for k, name in enumerate(names)]
    schedule = one_phase(dict.fromkeys(names, 1 / len(names)), domains)
    exported = write(trainer, schedule)
    read = READERS[trainer](exported.files, schedule)
    assert set(read) == set(names)
    assert all(abs(weight - 1 / len(names)) < 1e-3 for weight in read.values())


EXPONENT_DOMAINS = [domain for domain in example_schedule().domains if domain.name in ("web", "code")]
