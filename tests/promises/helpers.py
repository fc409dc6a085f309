"""What the tests of the guarantees share: crowds of threads and tasks, eyes on the engine, and deliberate defects."""

import _thread
import asyncio
import functools
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import CodeType, FrameType
from typing import Any, NoReturn, cast

import pytest

import nearcache
from nearcache import AsyncCache, Cache
from nearcache._core.outcome import Outcome
from nearcache.backends.hazelcast.listener import HazelcastListener
from nearcache.backends.listening import Life
from nearcache.backends.redis.listener import Listener
from nearcache.testing import Faults, FaultyBackend
from tests.measuring import is_measuring

PATIENCE = 20.0
"""Seconds after which something that has to happen is taken for never happening."""
ROUNDS = 20
"""How often a test of concurrency is run before it is believed."""


def dice() -> random.Random:
    """Return random numbers whose seed is printed, so that a failure can be repeated with NEARCACHE_SEED."""
    seed = int(os.environ.get("NEARCACHE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"NEARCACHE_SEED={seed}")
    return random.Random(seed)


def eventually(true: Callable[[], object], what: str) -> None:
    """Poll until `true` returns something true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.0005)


async def eventually_in_loop(true: Callable[[], object], what: str) -> None:
    """Poll until `true` returns something true, while the event loop goes on."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.0005)


# Crowds


class Crowd:
    """People who set off at the same moment: threads, and the tasks of event loops that have threads of their own."""

    def __init__(self) -> None:
        self._works: list[Callable[[], list[Outcome[Any]]]] = []
        self._threads: list[threading.Thread] = []
        self._outcomes: list[Outcome[Any]] = []

    def threads(self, number: int, do: Callable[[], Any]) -> "Crowd":
        """Add threads that each do this once."""
        self._works += [lambda: [outcome_of(do)]] * number
        return self

    def tasks(self, number: int, do: Callable[[], Awaitable[Any]], loops: int = 1) -> "Crowd":
        """Add event loops, each with so many tasks that do this once."""
        self._works += [lambda: asyncio.run(_side_by_side(number, do))] * loops
        return self

    def start(self) -> "Crowd":
        """Let them go."""
        together = threading.Barrier(len(self._works))
        for work in self._works:
            thread = threading.Thread(target=self._run, args=(together, work), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def finish(self, patience: float = PATIENCE) -> list[Outcome[Any]]:
        """Wait for all, and return what came of each."""
        deadline = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "somebody waits for ever"
        return self._outcomes

    @property
    def done(self) -> bool:
        """Whether nobody is under way any more."""
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, together: threading.Barrier, work: Callable[[], list[Outcome[Any]]]) -> None:
        together.wait(PATIENCE)
        self._outcomes += work()


def outcome_of(do: Callable[[], Any]) -> Outcome[Any]:
    """Do it, and return the value or the error."""
    try:
        return Outcome(do())
    except BaseException as error:
        return Outcome(error=error)


async def awaited(do: Callable[[], Awaitable[Any]]) -> Outcome[Any]:
    """Await it, and return the value or the error."""
    try:
        return Outcome(await do())
    except BaseException as error:
        return Outcome(error=error)


async def _side_by_side(number: int, do: Callable[[], Awaitable[Any]]) -> list[Outcome[Any]]:
    return await asyncio.gather(*[awaited(do) for _ in range(number)])


def values(outcomes: Sequence[Outcome[Any]]) -> list[Any]:
    """Return the values; nobody may have got an error."""
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert not errors, f"{len(errors)} of {len(outcomes)} got an error, the first: {errors[0]!r}"
    return [outcome.get() for outcome in outcomes]


# Loaders


class SlowSource:
    """A source that answers only when the test lets it; counts how often it is asked, and is of either flavour."""

    def __init__(self, answer: Callable[[], Any] = lambda: ["a", "value"]) -> None:
        self.answer = answer
        self.loads = 0
        self.cancelled = 0
        self._gate = threading.Event()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Let everybody have the answer."""
        self._gate.set()

    def load(self) -> Any:
        """Load, blocking."""
        self._count()
        assert self._gate.wait(PATIENCE), "the test never opened the source"
        return self.answer()

    async def aload(self) -> Any:
        """Load, awaiting."""
        self._count()
        try:
            await eventually_in_loop(self._gate.is_set, "the source is opened")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer()

    def _count(self) -> None:
        with self._lock:
            self.loads += 1


def waiting(cache: Cache | AsyncCache, key: str) -> int:
    """Return how many wait for the load of a key, its leader included."""
    flight = cache._parts.core.flights._by_key.get(key)
    if flight is None:
        return 0
    led_by_a_thread = type(flight.home) is object  # which is busy; a task waits for its load like the others
    return len(flight._wakers) + led_by_a_thread


# Eyes on the engine


class Recorder(Faults):
    """Counts the operations that reach the backend, and can hold them up."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.before: Callable[[str], None] = lambda operation: None
        self.after: Callable[[str], None] = lambda operation: None

    async def around(self, operation: str, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Do the operation and note it."""
        self.counts[operation] += 1
        self.before(operation)
        result = await super().around(operation, call, *args, **kwargs)
        self.after(operation)
        return result


@contextmanager
def recorded(*caches: Cache | AsyncCache) -> Iterator[Recorder]:
    """Look at what these caches ask of their engine."""
    recorder = Recorder()
    with ExitStack() as stack:
        for engine in (cache._engine for cache in caches):
            stack.enter_context(engine.replaced(FaultyBackend(engine.backend, recorder)))
            recorder.noticed = engine.ask_again
        yield recorder


# Signals


def interrupt() -> NoReturn:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def interrupted(test: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a test that interrupts at any place: Python complains of what it could not begin or end because of that.

    What it left behind is collected before it ends, so that the complaints come in its own time.
    """

    @functools.wraps(test)
    def collected(*args: Any, **kwargs: Any) -> None:
        try:
            test(*args, **kwargs)
        finally:
            gc.collect()

    never_begun = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
    in_a_finalizer = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    in_a_thread = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    marked: Callable[..., Any] = never_begun(in_a_finalizer(in_a_thread(collected)))
    return marked


class SignalAt:
    """Does what a signal handler does, at the n-th place of the library at which Python looks for signals.

    With `threads`, also at those at which Python starts one; but not where it would keep what was not started for ever.
    """

    def __init__(self, place: int, handler: Callable[[], object] = interrupt, *, threads: bool = False) -> None:
        self.place = place
        self.handler = handler
        self.threads = threads
        self.where = ""
        self.error: KeyboardInterrupt | None = None
        self._seen = 0

    def __call__(self, frame: Any, event: str, built_in: Any) -> None:
        """Count the beginnings of functions and the returns of built-in ones, as sys.setprofile reports them."""
        if event not in ("call", "c_return") or not self._is_inside(frame.f_code, built_in):
            return
        self._seen += 1
        if self._seen == self.place:
            self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno} ({event})"
            self.handler()

    def _is_inside(self, code: CodeType, built_in: Any) -> bool:
        if self.threads and code.co_filename == threading.__file__:
            return code.co_qualname.startswith("Thread.") and built_in in (None, STARTS_A_THREAD)
        return code.co_filename.startswith(LIBRARY)

    def run(self, do: Callable[[], Any]) -> str:
        """Do it with the signal, and return where that came ("" if it was over before)."""
        sys.setprofile(self)
        try:
            do()
        except KeyboardInterrupt as error:
            self.error = error  # and its traceback: nothing may depend on frames being dropped at once
        finally:
            sys.setprofile(None)
        return self.where


LIBRARY = os.path.dirname(nearcache.__file__) + os.sep
"""Where the library's files are."""
STARTS_A_THREAD = _thread.start_new_thread


class Alarm:
    """Interrupts the main thread after a while, by a real signal, while `armed`: its handler raises `error`."""

    def __init__(self) -> None:
        self.error: type[BaseException] = KeyboardInterrupt
        self.armed = False
        self.rung = 0

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        """Handle the signal, or put it off for a moment."""
        if is_measuring(frame):
            signal.setitimer(signal.ITIMER_REAL, 1e-4)
        elif self.armed:
            self.rung += 1
            raise self.error

    def during(self, seconds: float, do: Callable[[], Any]) -> None:
        """Do it, interrupted after so many seconds."""
        try:
            try:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, seconds)
                do()
            finally:
                self.armed = False
        except self.error:
            pass


# Deliberate defects


@contextmanager
def broken(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Take a mechanism away for the `with` block; `replacement` is what stands in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, replacement)
        yield


@contextmanager
def noticed(because: str | None = None) -> Iterator[None]:
    """Demand that the check in the block fails: a check that cannot fail tells nothing."""
    with pytest.raises(AssertionError, match=because):
        yield


@contextmanager
def unannounced() -> Iterator[None]:
    """Let nobody hear of what changes, which would make up for a deliberate defect."""

    def idle(_: HazelcastListener, life: Life) -> None:
        life.ended.wait()

    with broken(Listener, "_track", lambda *_: None), broken(HazelcastListener, "_listen", idle):
        yield


def impatient() -> AbstractContextManager[None]:
    """Do not wait long for what a deliberate defect keeps from happening."""
    return broken(sys.modules[__name__], "PATIENCE", 1.0)


def noticed_within(rounds: int, check: Callable[[], object], because: str = "") -> None:
    """Demand that a check that depends on luck fails in one of so many rounds, and says why."""
    for _ in range(rounds):
        try:
            check()
        except AssertionError as error:
            if because in str(error):
                return
            raise
    raise AssertionError(f"the check did not notice the defect in {rounds} rounds")


def at_once(do: Callable[[], Any], within: float | None = None) -> Any:
    """Do it in a thread of its own and return its value or raise its error; it must be done within some seconds."""
    within = min(5.0, PATIENCE) if within is None else within
    outcome: list[Outcome[Any]] = []
    thread = threading.Thread(target=lambda: outcome.append(outcome_of(do)), daemon=True)
    thread.start()
    thread.join(within)
    assert outcome, f"not done within {within:g} s"
    return cast("Any", outcome[0].get())
