"""This process's share in an embedded server: the first to need it starts it, the last to close stops it.

Three locks on files carry the whole agreement, so that a process killed at any moment leaves nothing behind that could
fool the next one: `change` is held while somebody looks for, starts or stops the server; `holders` is held, together,
by every process that uses it; `alive` is held by the server itself. Whoever finds `alive` free under `change` knows
that there is no server.
"""

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from nearcache._core.fork import on_fork
from nearcache.backends.embedded import locks, process
from nearcache.backends.embedded.place import Place, Record, place_of
from nearcache.backends.embedded.settings import Settings
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError

START_WITHIN: Final = 10.0
"""Seconds that the first call of a process waits until the server answers; it may have to read its data first."""

STOP_WITHIN: Final = 2.0
"""Seconds that closing may wait for other processes, or for the server to end."""

STARTS: Final = 2
"""How often one call tries to start a server."""

log: logging.Logger = logging.getLogger("nearcache")


class Lease:
    """One backend's use of a server, from its first `address()` until `release()`.

    `timeout` is how many seconds `address()` may take once it has succeeded in this process; before it may take more.
    """

    def __init__(self, settings: Settings, timeout: float) -> None:
        self._settings = settings
        self._timeout = timeout

    def address(self) -> str:
        """Join the server, start it if there is none, and return its address once it answers.

        Raises `ConfigError` if the directory is not ours, `UnsupportedError` without a server program, `BackendError`
        if the server does not start or does not answer.
        """
        return f"unix://{_share(self._settings).join(self, self._settings, self._timeout)}"

    def release(self) -> None:
        """Stop using the server; if nobody else uses it and it is not to be kept, it ends."""
        _share(self._settings).leave(self)


class Share:
    """What this process holds of one server, for all its leases."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.renew()

    def renew(self) -> None:
        """Begin anew with nothing held, as a forked child must."""
        self._mutex = threading.Lock()
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()
        self._held: int | None = None
        self._answered = False

    def join(self, lease: Lease, settings: Settings, timeout: float) -> Path:
        """Return the socket of a server that has just answered, starting one if there is none."""
        try:
            return self._join(lease, settings, timeout)
        except BackendError:
            raise
        except TimeoutError as error:
            problem = f"another process starts or ends it; see {self._place.log}"
            raise BackendTimeoutError(self._complaint(problem)).undone() from error
        except OSError as error:
            raise BackendUnavailableError(self._complaint(error.strerror or type(error).__name__)).undone() from error

    def leave(self, lease: Lease) -> None:
        """Give a lease back; the last one of the last process stops the server."""
        with self._mutex:
            self._leases.discard(lease)
            if not self._leases:
                self._let_go()

    def leave_all(self) -> None:
        """Give all leases back, as at the end of the process."""
        with self._mutex:
            self._leases.clear()
            self._let_go()

    def _join(self, lease: Lease, settings: Settings, timeout: float) -> Path:
        deadline = time.monotonic() + (timeout if self._answered else START_WITHIN)
        starts = 0
        while True:
            with self._changing(deadline):
                self._hold(lease)
                found = self._find(settings, deadline)
                starts += found is None
                path = found or self._start(settings, starts)
            answer = process.greet(path, max(0.001, deadline - time.monotonic()))
            if answer is process.Answer.READY:
                self._answered = True
                return path
            self._check_patience(answer, deadline)
            time.sleep(locks.PAUSE)

    def _check_patience(self, answer: process.Answer, deadline: float) -> None:
        if time.monotonic() > deadline:
            problem = f"{answer.value} in time; {process.last_words(self._place)}"
            raise BackendTimeoutError(self._complaint(problem)).undone()

    @contextmanager
    def _changing(self, deadline: float) -> Generator[None, None, None]:
        """Be the only thread of the only process that looks for, starts or stops this server."""
        self._place.prepare()
        if not self._mutex.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        try:
            with locks.exclusive(self._place.change, deadline):
                yield
        finally:
            self._mutex.release()

    def _hold(self, lease: Lease) -> None:
        """Count this process among the holders, so that nobody stops the server now."""
        if self._held is not None and not locks.is_current(self._held, self._place.holders):
            locks.release(self._held)  # somebody deleted the files: they mean nothing any more
            self._held = None
        if self._held is None:
            self._held = locks.open_file(self._place.holders)
            locks.try_shared(self._held)
        self._leases.add(lease)

    def _find(self, settings: Settings, deadline: float) -> Path | None:
        """Return the socket of the server that lives, None if there is none."""
        alive = locks.open_file(self._place.alive)
        try:
            found = None if locks.try_exclusive(alive) else self._living(alive, deadline)
        finally:
            locks.release(alive)
        if found is not None and settings.keep not in (None, found.keep):
            self._place.write(replace(found, keep=bool(settings.keep)))
        return None if found is None else found.socket

    def _start(self, settings: Settings, attempt: int) -> Path:
        if attempt > STARTS:
            problem = f"it ends as soon as it is started; {process.last_words(self._place)}"
            raise BackendUnavailableError(self._complaint(problem)).undone()
        alive = locks.open_file(self._place.alive)
        try:
            locks.try_exclusive(alive)
            return process.start(self._place, settings, alive).socket
        finally:
            locks.close(alive)  # without unlocking: the server shares the open file

    def _living(self, alive: int, deadline: float) -> Record | None:
        """Return where the living server is; None once it is gone, if it is to end."""
        found = self._place.read()
        if found is not None and not (found.ending and self._stop(found)):
            return found
        locks.wait_exclusive(alive, deadline)
        return None

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        try:
            with locks.exclusive(self._place.change, time.monotonic() + STOP_WITHIN):
                self._stop_if_last(held)
                locks.release(held)
        except OSError as error:  # closing must not fail, and the next start copes with a server that is left
            log.debug("embedded:// left its server in %s running: %s", self._place.home, type(error).__name__)
        finally:
            locks.release(held)

    def _stop_if_last(self, held: int) -> None:
        if not locks.is_current(held, self._place.holders) or not locks.try_exclusive(held):
            return
        found = self._place.read()
        if found is None or found.keep or found.ending:
            return
        self._stop(found)

    def _stop(self, found: Record) -> bool:
        """Tell the server to end, and whether it will; written down first, so that nobody joins it any more.

        Should this process die in between, the next one tells it again.
        """
        self._place.write(replace(found, ending=True))
        ends = process.stop(found.socket, STOP_WITHIN)
        if not ends:
            self._place.write(replace(found, ending=False))
        return ends

    def _complaint(self, problem: str) -> str:
        return f"the embedded server of {self._place.home} cannot be used: {problem}"


_shares: dict[Place, Share] = {}


def _share(settings: Settings) -> Share:
    place = place_of(settings.directory)
    return _shares.get(place) or _shares.setdefault(place, Share(place))


def _in_forked_child() -> None:
    locks.close_all()
    for share in _shares.values():
        share.renew()


def _at_exit() -> None:
    for share in list(_shares.values()):
        share.leave_all()


on_fork(in_child=_in_forked_child)
atexit.register(_at_exit)
