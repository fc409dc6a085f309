"""A lock passes between two processes as the bench says, and what is wrong with a lock is found."""

import asyncio
import contextlib
import io
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bench import handoff
from bench.coherence import WorkerError
from bench.contenders import locks
from bench.row import Contender


class Process:
    """A process that answers what it is told to, and keeps what it was told."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.told: list[str] = []
        self._answers = deque(answers)

    def tell(self, words: str) -> None:
        self.told.append(words)

    def hear(self) -> dict[str, Any]:
        return self._answers.popleft()


@pytest.fixture(autouse=True)
def _waits(monkeypatch) -> None:
    monkeypatch.setattr(handoff, "SETTLED", 0.0)
    monkeypatch.setattr(handoff, "WAITS", 0.0)


def at(*moments: float) -> list[dict[str, Any]]:
    return [{"at": moment} for moment in moments]


def test_the_lock_goes_to_and_fro_and_the_first_time_does_not_count() -> None:
    first, second = Process(*at(0.0, 1.0, 2.5, 3.0)), Process(*at(1.25, 2.0, 3.125))
    told = handoff.passes((first, second), 2)
    assert told["handoff"] == [0.5, 0.125]
    assert (told["p50"], told["longest"]) == ([0.3125], [0.5])
    assert first.told == ["take", "give", "take", "give"]
    assert second.told == ["take", "give", "take"]


def test_two_holders_at_the_same_time_are_noticed() -> None:
    with pytest.raises(WorkerError, match="two processes"):
        handoff.passes((Process(*at(0.0, 1.0)), Process(*at(0.5))), 1)


def test_what_a_process_could_not_do_is_told() -> None:
    with pytest.raises(WorkerError, match="LockError"):
        handoff.passes((Process({"error": "LockError: no"}), Process()), 1)


class Fails:
    """A lock that cannot be given back."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        raise OSError("gone")


def words(monkeypatch, name: str, builder: Any) -> list[dict[str, Any]]:
    """Return what a worker says that is told to take a lock and to give it back."""
    monkeypatch.setattr(locks, name, builder, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("take\ngive\n"))
    out = io.StringIO()
    handoff.live(out, Contender("made", f"locks:{name}", "nearcache", ()), "")
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_worker_takes_and_gives_as_told(monkeypatch, awaited) -> None:
    done: list[str] = []

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        done.append("taken")
        yield
        done.append("given")

    @contextlib.asynccontextmanager
    async def async_lock() -> AsyncIterator[None]:
        with lock():
            await asyncio.sleep(0)
            yield

    async def opened(url: str, stack: contextlib.AsyncExitStack) -> Any:
        return async_lock

    hello, took, gave = words(monkeypatch, "made", opened if awaited else lambda url: lock)
    assert "python" in hello["versions"]
    assert took["at"] <= gave["at"]
    assert done == ["taken", "given"]


def test_a_worker_says_what_a_lock_raises(monkeypatch) -> None:
    *_, gave = words(monkeypatch, "made", lambda url: Fails)
    assert gave == {"error": "OSError: gone"}
