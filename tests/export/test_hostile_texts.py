"""Names and paths are data in every trainer's file: as they are, or refused, whatever they would mean to its reader."""

from dataclasses import replace

import pytest
from export_examples import example_domains, example_schedule, one_phase
from readers import READERS

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.registry import TRAINERS, write

HOSTILE = (
    *("../../etc/passwd", "a$(touch${IFS}x)", "a`id`", "a;rm", "=1+1", "@SUM(A1)", "-", "%(x)s"),
    *("<script>alert(1)</script>", "{{7*7}}", "!!python/object/apply:os.system", "*alias", "&anchor"),
    *('a"b', "a'b", "a\\b", "a: b", "# comment", "null", "1.5", "true", "a,b", "[x]", "{x}"),
)
BREAKING = ("a\nb", "a\rb", "a\x1b[31mb", "a\u202eb", "a\u2028b", "a\x00b", " a", "")


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_path_is_read_back_as_a_text_or_refused(trainer: str, text: str) -> None:
    first, *rest = example_domains()
    schedule = example_schedule(domains=[replace(first, path=text), *rest])
    try:
        exported = write(trainer, schedule)
    except TikmixError:
        return
    read = READERS[trainer](exported.files, schedule)
    assert read.keys() == exported.realised.stated.keys()


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_name_is_read_back_as_a_text_or_refused(trainer: str, text: str) -> None:
    weights = {text: 0.25, "web": 0.75}
    try:
        domains = [replace(example_domains()[0], name=name, path=f"data/{k}") for k, name in enumerate(weights)]
        schedule = one_phase(weights, domains)
        exported = write(trainer, schedule)
    except TikmixError:
        return
    read = READERS[trainer](exported.files, schedule)
    assert read.keys() == weights.keys()


@pytest.mark.parametrize("text", BREAKING)
def test_text_that_would_break_out_of_a_line_or_reorder_it_is_refused(text: str) -> None:
    first, *rest = example_domains()
    with pytest.raises(TikmixError):
        write("olmo_core", example_schedule(domains=[replace(first, path=text), *rest]))
