import math
from dataclasses import replace

import pytest
from export_examples import BATCH, example_domains, example_schedule, one_phase

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.schedule import Domain, Gain, Phase

FIRST = {"web": 0.6, "code": 0.4}


def _phases(*starts: int) -> list[Phase]:
    return [Phase(start, start * BATCH, FIRST) for start in starts]


def _domains(**changes: object) -> list[Domain]:
    first, *rest = example_domains()
    return [replace(first, **changes), *rest]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": []}, r"no stage"),
        ({"domains": []}, r"no domains to export"),
        ({"phases": [Phase(0, 0, {"web": -0.5, "code": 1.5})]}, r"stage 0 \(from step 0\)\.web is -0\.5"),
        ({"phases": [Phase(0, 0, {"web": math.nan, "code": 1.0})]}, r"stage 0 \(from step 0\)\.web is nan"),
        ({"phases": [Phase(0, 0, {"wbe": 1.0})]}, r"names the domain 'wbe', .* Did you mean 'web'\?"),
        ({"phases": [Phase(0, 0, {"web": 0.5, "code": 0.4})]}, r"stage 0 \(from step 0\) sum to 0\.9 instead of 1"),
        (
            {"phases": _phases(0, 20, 20)},
            r"stage 2 starts at step 20 and token 163840, stage 1 at step 20 and token 163840: step and token must",
        ),
        (
            {"phases": _phases(0, 20, 10)},
            r"stage 2 starts at step 10 and token 81920, .*: step and token must increase",
        ),
        (
            {"phases": [*_phases(0), Phase(5, 0, FIRST)]},
            r"stage 1 starts at step 5 and token 0, stage 0 at step 0 and token 0: token must increase",
        ),
        (
            {"phases": [*_phases(0, 20), Phase(20, 20 * BATCH + 100, FIRST)]},
            r"stage 2 starts at step 20 and token 163940, stage 1 at step 20 and token 163840: step must increase",
        ),
        ({"phases": _phases(10)}, r"the first stage starts at step 0"),
        ({"batch_tokens": 1000}, r"1000 tokens is no whole number of sequences of 256"),
        ({"chunk_tokens": 0}, r"chunk_tokens of an export is 0"),
        ({"context": -1}, r"context of an export is -1"),
        ({"experiment": "two\nlines"}, r"name of the experiment is 'two\\nlines'"),
        ({"domains": _domains(path="data/code_text")}, r"'web' and 'code' share the path 'data/code_text'"),
        ({"domains": _domains(name="code")}, r"Two domains are named 'code'"),
        ({"domains": _domains(path="")}, r"the path of the domain 'web' is ''"),
        ({"domains": _domains(path="data/\tx")}, r"the path of the domain 'web'"),
        ({"domains": _domains(available_tokens=0.0)}, r"available_tokens of the domain 'web' is 0\.0"),
        ({"domains": _domains(mean_tokens_per_document=math.inf)}, r"mean_tokens_per_document of the domain 'web'"),
        ({"domains": _domains(max_epochs=-1.0)}, r"max_epochs of the domain 'web' is -1\.0"),
        ({"remaining_tokens": 1}, r"remaining_tokens of an export is 1; give at least the 8192000 of the chunk"),
        ({"domains": _domains(consumed_tokens=-1)}, r"consumed_tokens of the domain 'web' is -1"),
        ({"epochs": {"wbe": 1.0}}, r"epochs names the domain 'wbe', .* Did you mean 'web'\?"),
        ({"epochs": {"web": math.inf}}, r"epochs of the domain 'web' is inf"),
        ({"expected_gain": {"recall": Gain(math.nan, None)}}, r"gain of the task 'recall' is nan"),
        ({"expected_gain": {"recall": Gain(0.1, -0.1)}}, r"gain of the task 'recall' is 0\.1 ± -0\.1"),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_fault(changes, message):
    with pytest.raises(TikmixError, match=message):
        example_schedule(**changes)


def test_a_domain_without_a_weight_has_none():
    schedule = example_schedule(phases=_phases(0))
    assert schedule.last.weights == FIRST


def test_sizes_follow_from_the_tokens():
    schedule = one_phase({"web": 1.0}, chunk_tokens=3 * BATCH + 1)
    assert schedule.chunk_steps == 4
    assert schedule.batch_sequences == 32
    assert schedule.end_tokens == 3 * BATCH + 1
