"""What is not to be interrupted is not, and the signal is answered all the same."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from tikmix_pipeline.signals import signals_deferred


@pytest.fixture
def answer() -> Iterator[Callable[..., NoReturn]]:
    """Answer SIGTERM by an exit, as a run does."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    yield end
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("fails", [False, True])
def test_a_signal_within_is_answered_right_after_whatever_becomes_of_the_block(
    answer: Callable[..., NoReturn], fails: bool
) -> None:
    done: list[str] = []

    def start() -> None:
        with signals_deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("started")
            if fails:
                raise OSError("no space left")

    with pytest.raises(SystemExit) as ended:
        start()
    assert done == ["started"]
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is answer


def test_without_a_signal_or_beside_the_main_thread_nothing_changes():
    before = signal.getsignal(signal.SIGINT)
    with signals_deferred():
        pass
    thread = threading.Thread(target=lambda: signals_deferred().__enter__())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
