"""What is not to be interrupted is not, and the signal is answered all the same."""

import signal
import threading

import pytest

from tikmix_pipeline.signals import signals_deferred


def test_a_signal_within_is_answered_right_after():
    def answer(number, _):
        raise SystemExit(128 + number)

    def start():
        with signals_deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("started")

    done: list[str] = []
    before = signal.signal(signal.SIGTERM, answer)
    try:
        with pytest.raises(SystemExit) as ended:
            start()
        assert done == ["started"]
        assert ended.value.code == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is answer
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_signal_or_beside_the_main_thread_nothing_changes():
    before = signal.getsignal(signal.SIGINT)
    with signals_deferred():
        pass
    thread = threading.Thread(target=lambda: signals_deferred().__enter__())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
