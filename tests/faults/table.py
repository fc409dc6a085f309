"""What callers saw while something was broken: each test of a fault writes it down, and a page shows it.

    with seen("the engine never answers") as callers:
        with callers.read():
            cache.get("users:1")
        ...
        callers.normal_again(lambda: works(cache))

Every row is a file in `.cache/faults`; `python -m tools.faults` makes the table of docs/faults.md of them.
"""

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from nearcache import CacheError
from tests.promises.helpers import eventually
from tools.faults import FOLDER


class Callers:
    """Counts what callers see, from any number of threads and tasks."""

    def __init__(self) -> None:
        self.reads = self.read_errors = self.writes = self.write_errors = self.wrong = 0
        self.slowest = 0.0
        self.normal_after: float | None = None
        self.loads: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        """The types and messages of errors, for messages of tests."""
        self._lock = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[None]:
        """Count a read for the `with` block; an error of the library is counted too, and goes no further."""
        failed = yield from self._timed()
        with self._lock:
            self.reads += 1
            self.read_errors += failed

    @contextmanager
    def write(self) -> Iterator[None]:
        """Count a write or an invalidation likewise."""
        failed = yield from self._timed()
        with self._lock:
            self.writes += 1
            self.write_errors += failed

    def load(self, key: str) -> None:
        """Count a load of a key."""
        with self._lock:
            self.loads[key] += 1

    def judge(self, right: bool) -> None:
        """Count a wrong value."""
        if not right:
            with self._lock:
                self.wrong += 1

    def normal_again(self, works: Callable[[], object]) -> None:
        """Wait until something works, from the end of the fault on, and note how long that took."""
        ended = time.monotonic()
        eventually(works, "all is well again")
        self.normal_after = time.monotonic() - ended

    def _timed(self) -> Generator[None, None, bool]:
        began = time.monotonic()
        try:
            yield
        except CacheError as error:
            with self._lock:
                self.errors[f"{type(error).__name__}: {error}"] += 1
            return True
        finally:
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - began)
        return False


@contextmanager
def seen(fault: str) -> Iterator[Callers]:
    """Write down what callers see of a fault in the `with` block, if the test gets to its end."""
    callers = Callers()
    yield callers
    row = {
        "fault": fault,
        "reads": callers.reads,
        "read_errors": callers.read_errors,
        "loads_per_key": max(callers.loads.values(), default=0),
        "wrong": callers.wrong,
        "writes": callers.writes,
        "write_errors": callers.write_errors,
        "slowest": round(callers.slowest, 3),
        "normal_after": None if callers.normal_after is None else round(callers.normal_after, 3),
        "test": _running_test(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{_slug(fault)}.json").write_text(json.dumps(row, indent=1) + "\n")


def _running_test() -> str:
    """Return the file of the test that runs, within the checkout."""
    return Path(os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]).as_posix()


def _slug(fault: str) -> str:
    return re.sub(r"\W+", "-", fault.lower()).strip("-")
