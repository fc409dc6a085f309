"""What the tests of the near store share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nearcache.near.store import Store

FAR = 1_000_000.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Let threads interrupt one another as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def keep(store: Store, key: str, value: object = "value", deadline: float = FAR, size: int = 10) -> bool:
    """Keep a value as a reader does that nothing crossed."""
    return store.keep(key, value, None, deadline, size, store.stamp(key))
