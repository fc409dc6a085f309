"""Other processes: new interpreters, which share nothing with this one but the cache and the database."""

import os
import signal
import sys
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def processes(count: int) -> Generator[ProcessPoolExecutor, None, None]:
    """Have that many worker processes, each started when there is work for it, until the `with` block ends."""
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_ignore_interrupts)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def freeze(pid: int) -> None:
    """Make a process stop, without ending it."""
    if sys.platform != "win32":
        os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Let a child process go on that freezes itself, as soon as it has."""
    if sys.platform != "win32":
        os.waitpid(pid, os.WUNTRACED)
        os.kill(pid, signal.SIGCONT)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
