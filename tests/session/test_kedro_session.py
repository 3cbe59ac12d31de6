"""How a run ends: by whom, with which status in the store, and with which exit code."""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.framework.session import KedroSession
from kedro.pipeline import Pipeline, node
from kedro.runner import ParallelRunner, SequentialRunner, ThreadRunner

from tikmix_pipeline.errors import TikmixError, causes_of
from tikmix_pipeline.session import kedro_session
from tikmix_pipeline.session.kedro_session import RunInterruptedError, TikmixSession, UserError
from tikmix_pipeline.session.run_hooks import RunHooks


class Hook:
    """Notes how it was closed, after doing what a test wants done meanwhile."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def close_as(self, status: str) -> None:
        self.meanwhile()
        self.statuses.append(status)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Hook:
    made = Hook()
    monkeypatch.setattr(kedro_session, "settings", SimpleNamespace(HOOKS=[made]))
    return made


@pytest.fixture
def run(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a session whose nodes do what they are told."""
    del hook

    def run_session(nodes: Callable[[], Any], **options: Any) -> Any:
        monkeypatch.setattr(KedroSession, "run", lambda *_, **__: nodes())
        return TikmixSession.__new__(TikmixSession).run(**options)

    return run_session


def send(number: int) -> Callable[[], None]:
    def send_and_wait() -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    return send_and_wait


@pytest.fixture(autouse=True)
def _usual_handlers() -> Iterator[None]:
    """Tests that a script or `nohup` has started ignore some signals."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGTERM, 143, "Interrupted by SIGTERM. What is finished is kept"),
        (signal.SIGHUP, 129, "Interrupted by SIGHUP. What is finished is kept"),
        (signal.SIGINT, 130, "Interrupted. What is finished is kept"),
    ],
)
def test_a_signal_closes_the_run_as_killed_and_is_the_exit_code(
    run: Callable[..., Any], hook: Hook, number: int, code: int, words: str
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(RunInterruptedError) as ended:
        run(send(number))
    assert (ended.value.exit_code, hook.statuses) == (code, ["KILLED"])
    assert str(ended.value).startswith(words)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_a_library_makes_an_error_of_is_a_signal_all_the_same(
    run: Callable[..., Any], hook: Hook, number: int, code: int
) -> None:
    """As OmegaConf does, which a signal may find at work on the configuration."""

    def swallow() -> None:
        try:
            send(number)()
        except BaseException as error:
            raise ValueError("'NoneType' object has no attribute '_invalidate_flags_cache'") from error

    with pytest.raises(RunInterruptedError) as ended:
        run(swallow)
    assert (ended.value.exit_code, hook.statuses) == (code, ["KILLED"])


def test_a_launcher_that_a_signal_ended_ends_the_run_alike(run: Callable[..., Any], hook: Hook) -> None:
    def launch() -> None:
        raise SystemExit(143)

    with pytest.raises(RunInterruptedError) as ended:
        run(launch)
    assert (ended.value.exit_code, hook.statuses) == (143, ["KILLED"])


def test_a_signal_that_is_sent_again_does_not_stop_the_closing(run: Callable[..., Any], hook: Hook) -> None:
    hook.meanwhile = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(RunInterruptedError):
        run(send(signal.SIGTERM))
    assert hook.statuses == ["KILLED"]


def test_handlers_and_refusals_of_signals_that_are_there_stay(run: Callable[..., Any], hook: Hook) -> None:
    """`nohup` ignores SIGHUP, and a script may have plans of its own for SIGTERM."""
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(lambda: [os.kill(os.getpid(), number) for number in (signal.SIGTERM, signal.SIGHUP)])
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, ignored)
    assert (told, hook.statuses) == ([signal.SIGTERM], [])


@pytest.mark.parametrize("runner", [ParallelRunner, ThreadRunner])
def test_runners_that_start_nodes_side_by_side_are_refused_before_anything_runs(runner: type) -> None:
    """Whichever session runs; it tells its hooks of a runner by its `repr`."""
    with pytest.raises(TikmixError, match=f"--runner={runner.__name__}: nodes run one after the other"):
        RunHooks().before_pipeline_run({"runner": str(runner())}, Pipeline([]), None)
    with pytest.raises(RuntimeError, match="no session has begun"):
        RunHooks().before_pipeline_run({"runner": str(SequentialRunner())}, Pipeline([]), None)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the quota on this disk is used up"),
        (errno.EROFS, "the disk can only be read"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk reports an error"),
    ],
)
def test_trouble_with_the_disk_is_told_with_its_place(
    run: Callable[..., Any], hook: Hook, number: int, words: str
) -> None:
    def write() -> None:
        raise OSError(number, os.strerror(number), "data/weights")

    with pytest.raises(UserError) as error:
        run(write)
    assert str(error.value).startswith(f"data/weights: {words}")
    assert hook.statuses == ["FAILED"]


def fail_to_find() -> None:
    raise ValueError("Failed to find the pipeline named 'x'. It needs to be generated by a function. Did you mean: y?")


NODES = Pipeline([node(lambda x: x, "a", "b", name="one", tags="known")])


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (lambda: NODES.only_nodes("two"), "does not contain nodes named \\['two'\\]. `kedro registry describe"),
        (lambda: NODES.only_nodes_with_namespaces(["two"]), "following namespaces: \\['two'\\]. `kedro registry"),
        (lambda: NODES.from_inputs("c"), "does not contain datasets named \\['c'\\]. `kedro registry describe"),
        (lambda: NODES.filter(tags=["other"]), "no nodes after applying all provided filters. `kedro registry"),
        (fail_to_find, "^Failed to find the pipeline named 'x'. Did you mean: y\\? `kedro registry list`"),
    ],
)
def test_names_that_kedro_does_not_find_are_told_without_a_traceback(
    run: Callable[..., Any], look: Callable[[], Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run(look)


def test_an_unknown_error_is_raised_as_it_is_at_once(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run(fail)
    monkeypatch.setattr(KedroSession, "load_context", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours") as error:
        TikmixSession.__new__(TikmixSession).load_context()
    assert list(causes_of(error.value)) == [error.value]


def test_causes_of_an_error_that_was_raised_from_itself_have_an_end() -> None:
    error = TikmixError("one")
    error.__cause__ = error
    assert list(causes_of(error)) == [error]


def test_hooks_are_closed_in_the_order_that_they_were_opened_in_reversed(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is taken first: as long as a run has others to close, nobody else may begin."""
    closed: list[str] = []
    hooks = [SimpleNamespace(close_as=lambda _, name=name: closed.append(name)) for name in ("lock", "tracking")]
    monkeypatch.setattr(kedro_session, "settings", SimpleNamespace(HOOKS=hooks))
    with pytest.raises(RunInterruptedError):
        run(send(signal.SIGTERM))
    assert closed == ["tracking", "lock"]
