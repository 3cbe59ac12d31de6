"""Python looks for no cycles while a process starts, and does again however that ends."""

import gc
from collections.abc import Iterator

import pytest

from tikmix_pipeline.session.start_hooks import StartHooks


@pytest.fixture(autouse=True)
def nothing_frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Objects of a test are not to stay beyond it."""
    monkeypatch.setattr(gc, "freeze", lambda: None)
    yield
    gc.enable()


def test_cycles_are_looked_for_from_the_first_node_on() -> None:
    start = StartHooks()
    with start:
        assert not gc.isenabled()
        start.before_node_run()
        assert gc.isenabled()
        start.before_node_run()
    assert gc.isenabled()


def test_a_run_that_is_refused_before_its_first_node_ends_it_too() -> None:
    with pytest.raises(ValueError, match="refused"), StartHooks():
        raise ValueError("refused")
    assert gc.isenabled()


def test_a_later_run_of_the_process_changes_nothing() -> None:
    start = StartHooks()
    with start:
        pass
    with start:
        assert gc.isenabled()


def test_who_looks_for_no_cycles_anyway_goes_on_so() -> None:
    gc.disable()
    start = StartHooks()
    with start:
        start.before_node_run()
    assert not gc.isenabled()
