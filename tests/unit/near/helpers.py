"""What the tests of the near store share."""

from nearcache.near.store import Store

FAR = 1_000_000.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def keep(store: Store, key: str, value: object = "value", deadline: float = FAR, size: int = 10) -> bool:
    """Keep a value as a reader does that nothing crossed."""
    return store.keep(key, value, None, deadline, size, store.stamp(key))
