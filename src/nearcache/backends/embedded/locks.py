"""Locks on files, which end with the process that holds them, however it ends.

A lock of `flock(2)` belongs to an open file, which a forked child shares: a child closes its copies, never unlocks
them.
"""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nearcache.backends.embedded import posix

PAUSE: Final = 0.002
"""Seconds between two looks at a lock that is taken: flock itself cannot wait with a deadline."""

_ours: set[int] = set()


def open_file(path: Path) -> int:
    """Open a file to lock it, made if it is absent, and return its descriptor."""
    return _register(posix.open_to_lock(path))


def open_directory(path: Path) -> int:
    """Open a directory to lock it, and return its descriptor."""
    return _register(posix.open_to_lock(path, directory=True))


def close(descriptor: int) -> None:
    """Close a descriptor once; its lock ends unless another process shares the open file."""
    if descriptor in _ours:
        _ours.discard(descriptor)
        os.close(descriptor)


def release(descriptor: int) -> None:
    """End the lock, for everybody who shares the open file, and close it.

    In a child that was forked in between nothing happens: the lock is the parent's.
    """
    if descriptor in _ours:
        posix.unlock(descriptor)
        close(descriptor)


def try_exclusive(descriptor: int) -> bool:
    """Take the lock for this open file alone, unless somebody else has it."""
    return posix.try_lock(descriptor, shared=False)


def try_shared(descriptor: int) -> bool:
    """Take the lock together with others, unless somebody has it alone."""
    return posix.try_lock(descriptor, shared=True)


@contextmanager
def exclusive(path: Path, deadline: float) -> Generator[None, None, None]:
    """Hold the file's lock alone for the `with` block.

    Raises `TimeoutError` if it is not free before `deadline`, a time of the monotonic clock.
    """
    descriptor = open_file(path)
    try:
        wait_exclusive(descriptor, deadline)
        yield
    finally:
        release(descriptor)


def wait_exclusive(descriptor: int, deadline: float) -> None:
    """Take the lock alone; raises `TimeoutError` if it is not free before `deadline`."""
    while not try_exclusive(descriptor):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(PAUSE)


def is_current(descriptor: int, path: Path) -> bool:
    """Tell whether the open file is still the one at `path`, and not one that was deleted there."""
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), now)


def close_all() -> None:
    """Close every descriptor of this module: a forked child must not keep its parent's locks alive."""
    for descriptor in list(_ours):
        close(descriptor)


def _register(descriptor: int) -> int:
    _ours.add(descriptor)
    return descriptor
