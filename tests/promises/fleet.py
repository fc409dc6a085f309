"""Several processes over one engine, and a source that all of them load from.

What the source does is written down in the engine over bare connections, so that nothing about it depends on the
library. Each load waits until the test opens its gate, by the number of the load: so it is the test that says how long
a load takes, and what it brings.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

from nearcache._core.outcome import Outcome
from tests.promises.helpers import LIBRARY, eventually, outcome_of
from tests.servers import CHECKOUT, ask

PATIENCE = 20.0
"""Seconds after which something that has to happen is taken for never happening."""

IDLE = 120.0
"""Seconds without a command after which a process ends: whoever started it is gone."""

STALL = 0.5
"""A round in which the machine stood still for so many seconds says nothing about time."""


class Source:
    """A slow source of values, and the letter boxes between a test and its processes: all of it lists in the engine."""

    def __init__(self, address: Path, namespace: str) -> None:
        self.address = address
        self.namespace = namespace

    # For the processes

    def load(self, key: str) -> str:
        """Load: write that down, wait for the gate of this load, and return or raise what stands there."""
        number = self.engine("RPUSH", self._box("begun", key), os.getpid())
        gate = self._box("gate", key, number)
        answer = self.engine("BLMOVE", gate, gate, "LEFT", "RIGHT", PATIENCE, timeout=2 * PATIENCE)
        assert answer, f"the test never opened the gate of load {number} of {key}"
        self.engine("RPUSH", self._box("answered", key), time.monotonic())
        if answer.startswith(b"!"):
            raise ConnectionRefusedError(answer.decode())
        return str(answer.decode())

    def put(self, box: str, text: str) -> None:
        """Put something into a letter box."""
        self.engine("RPUSH", self._box("letters", box), text)

    def take(self, box: str, within: float = PATIENCE) -> str | None:
        """Wait for something in a letter box; None if nothing comes."""
        found = self.engine("BLPOP", self._box("letters", box), within, timeout=within + PATIENCE)
        return None if found is None else cast(str, found[1].decode())

    # For the test

    def open(self, key: str, number: int, answer: str) -> None:
        """Let this load of the key end with this answer; one that begins with ! is raised."""
        self.engine("RPUSH", self._box("gate", key, number), answer)

    def begun(self, key: str) -> list[int]:
        """Return the ids of the processes that have begun a load of the key, one for each load."""
        return [int(who) for who in self.engine("LRANGE", self._box("begun", key), 0, -1)]

    def answered(self, key: str) -> list[float]:
        """Return when the loads of the key had their answers (monotonic)."""
        return [float(at) for at in self.engine("LRANGE", self._box("answered", key), 0, -1)]

    def waiters(self, key: str) -> int:
        """Return how many processes the engine knows to wait for the key's lease."""
        return int(self.engine("SCARD", f"{{{self.namespace}:{key}}}~w"))

    def lease_left(self, key: str) -> int:
        """Return how many milliseconds the key's lease has left, -2 if there is none."""
        return int(self.engine("PTTL", f"{{{self.namespace}:{key}}}~l"))

    def stored(self, key: str) -> bytes:
        """Return what the engine holds for the key."""
        return bytes(self.engine("GET", f"{self.namespace}:{key}") or b"")

    def engine(self, *words: str | bytes | float, timeout: float = PATIENCE) -> Any:
        """Send one command to the engine."""
        return ask(self.address, *words, timeout=timeout)

    def _box(self, *parts: object) -> str:
        return ":".join(["~test", self.namespace, *map(str, parts)])


class Reading:
    """A crowd of readers in another process that ask for one key."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self.name = name

    def waits(self) -> None:
        """Wait until each of them waits for the load, or all have what they wanted."""
        assert self._source.take(f"{self.name}:waits"), f"{self.name}: the readers never all wait"

    def answer(self, within: float = PATIENCE) -> "Answer":
        """Wait until each has a value or an error."""
        answer = self._source.take(f"{self.name}:got", within)
        assert answer, f"{self.name}: somebody waits longer than {within:g} s"
        return Answer(json.loads(answer))


class Answer:
    """What a crowd of readers got, and when they set off and the last of them had it (monotonic)."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.asked: float = said["asked"]
        self.got: Counter[str] = Counter(what for what, _ in said["got"])
        self.last: float = max(at for _, at in said["got"])


class Member:
    """One process of a fleet."""

    def __init__(self, source: Source, url: str, without: str) -> None:
        self.name = f"process {next(_numbers)}"
        self._source = source
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 -- `kill` closes it
        settings = {"CACHE_URL": url, "CACHE_NAMESPACE": source.namespace}
        words = [sys.executable, "-m", "tests.promises.loading", self.name, str(source.address), without]
        path = f"{Path(LIBRARY).parent}{os.pathsep}{CHECKOUT}"
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stderr=self._stderr,
            cwd=CHECKOUT,
            env={**os.environ, **settings, "PYTHONPATH": path},
        )
        self.pid = self._process.pid

    @property
    def lives(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def read(self, key: str, threads: int = 0, tasks: int = 0, hard_timeout: float = 30.0) -> Reading:
        """Let so many threads and tasks of this process ask for the key."""
        reading = Reading(self._source, f"{self.name}, reading {next(_numbers)}")
        order = {"name": reading.name, "key": key, "threads": threads, "tasks": tasks, "hard_timeout": hard_timeout}
        self._source.put(self.name, json.dumps(order))
        return reading

    def stop(self) -> None:
        """Freeze the process."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process without a warning (SIGKILL); does nothing if it is gone."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._stderr.close()

    def end(self) -> None:
        """Let the process end as programs do; it must not have complained of anything."""
        if not self.lives and self._stderr.closed:
            return
        self._source.put(self.name, "end")
        try:
            code = self._process.wait(PATIENCE)
            self._stderr.seek(0)
            complaint = self._stderr.read().decode()
        finally:
            self.kill()
        assert (code, complaint) == (0, ""), f"{self.name} ended with {code}:\n{complaint}"


class Fleet:
    """Processes that share a namespace of one engine; `without` is a mechanism that is taken away from all of them."""

    def __init__(self, url: str, address: Path, without: str = "") -> None:
        self.source = Source(address, f"fleet{uuid.uuid4().hex[:8]}")
        self._url = url
        self._without = without
        self._members: list[Member] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            for member in self._members if kind is None and not self._without else ():
                member.end()
        finally:
            for member in self._members:
                member.kill()

    def crew(self, number: int) -> list[Member]:
        """Return so many living processes."""
        living = [member for member in self._members if member.lives][:number]
        more = [Member(self.source, self._url, self._without) for _ in range(number - len(living))]
        self._members += more
        return living + more

    def key(self) -> str:
        """Return a key that nobody has used."""
        return f"keys:{next(_numbers)}"

    def leads(self, key: str, member: Member) -> None:
        """Wait until this process has begun the first load of the key."""
        eventually(lambda: self.source.begun(key) == [member.pid], "it loads")

    def wait(self, key: str, processes: int) -> None:
        """Wait until one process loads the key and so many wait for its lease; or until it is loaded more than once."""
        source = self.source

        def waiting() -> bool:
            loads = len(source.begun(key))
            return loads > 1 or (loads == 1 and source.waiters(key) == processes)

        eventually(waiting, "the others wait")


_numbers = itertools.count(1)


# Time


@contextmanager
def ticking() -> Iterator[list[float]]:
    """Note how long the machine stood still at worst: the longest time between two ticks."""
    worst, over = [0.0], threading.Event()

    def tick() -> None:
        last = time.monotonic()
        while not over.wait(0.02):
            now = time.monotonic()
            worst[0], last = max(worst[0], now - last), now

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield worst
    finally:
        over.set()
        thread.join()


def in_time(rounds: int, play: Callable[[], float]) -> None:
    """Play rounds until so many are valid; each returns by how many seconds somebody was late, which nobody may be.

    A round during which the machine stood still is void: what everybody got is judged, but not when. At most one in
    three may be void, or one at all.
    """
    valid = void = 0
    while valid < rounds:
        with ticking() as worst:
            late: Outcome[float] = outcome_of(play)
        if worst[0] <= STALL:
            valid += 1
            assert late.get() <= 0.0, f"somebody was {late.get():.3f} s late"
        else:
            void += 1
            late.get()
            assert void <= max(1, rounds // 2), "the machine stands still too often to say anything about time"
