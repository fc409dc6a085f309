"""Sessions of memory://: the same decisions as the scripts of an engine, for the threads and tasks of one process."""

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from nearcache._core.clock import Clock
from nearcache._core.fork import on_fork
from nearcache.backends.sessions import SessionChange, SessionRecord, session_size, session_too_large

FEW = 1_000
"""Sessions that are kept before anybody looks for those that have ended."""


@dataclass(slots=True)
class _Session:
    """One session; times are on the clock of the cache."""

    idle: float
    ends: float
    until: float
    fields: dict[bytes, bytes]
    moved: str = ""

    def record(self, now: float) -> SessionRecord:
        """Return it as it is told."""
        return SessionRecord(self.idle, self.ends - now, dict(self.fields))


class MemorySessions:
    """The port of sessions, which both flavours share. A forked child has copies of its parent's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._users: dict[str, dict[str, float]] = {}
        """When the sessions of each user end in any case, by name."""
        self._many = FEW
        self.after_fork()
        _all.add(self)

    async def create(self, name: str, record: SessionRecord) -> None:
        """Begin a session."""
        with self._mutex:
            now = self._clock()
            self._sweep(now)
            until = now + min(record.idle, record.left)
            self._sessions[name] = _Session(record.idle, now + record.left, until, dict(record.fields))

    async def load(self, names: Sequence[str], *, used: bool) -> list[SessionRecord | None]:
        """Read sessions."""
        with self._mutex:
            now = self._clock()
            found = [self._present(name, now, used=used) for name in names]
            return [None if session is None else session.record(now) for session in found]

    async def save(self, name: str, change: SessionChange) -> bool:
        """Change a session that is there."""
        with self._mutex:
            return self._changed(name, change) is not None

    async def move(self, name: str, change: SessionChange, to: str) -> SessionRecord | None:
        """Change a session for the last time."""
        with self._mutex:
            session = self._changed(name, change)
            if session is None:
                return None
            session.moved = to
            return session.record(self._clock())

    async def leave(self, name: str, to: str) -> bool:
        """Remove a session that has moved."""
        with self._mutex:
            session = self._sessions.get(name)
            if session is None or session.moved != to or session.until <= self._clock():
                return False
            del self._sessions[name]
            return True

    async def destroy(self, names: Sequence[str]) -> int:
        """Remove sessions."""
        with self._mutex:
            now = self._clock()
            return sum(session is not None and session.until > now for session in map(self._pop, names))

    async def absent(self, names: Sequence[str]) -> list[str]:
        """Tell under which names there is nothing."""
        with self._mutex:
            now = self._clock()
            found = [(name, self._sessions.get(name)) for name in names]
            return [name for name, session in found if session is None or session.until <= now]

    async def enlist(self, user: str, name: str, left: float, before: str = "") -> None:
        """Add a session to those of a user."""
        with self._mutex:
            listed = self._users.setdefault(user, {})
            listed.pop(before, None)
            listed[name] = self._clock() + left

    async def names_of(self, user: str) -> list[str]:
        """List the sessions of a user."""
        with self._mutex:
            return list(self._users.get(user, ()))

    async def strike(self, user: str, names: Sequence[str]) -> None:
        """Take sessions from those of a user."""
        with self._mutex:
            listed = self._users.get(user, {})
            for name in names:
                listed.pop(name, None)
            if not listed:
                self._users.pop(user, None)

    def after_fork(self) -> None:
        """Make a forked child's copy its own: somebody may have held the lock."""
        self._mutex = threading.RLock()

    def _present(self, name: str, now: float, *, used: bool) -> _Session | None:
        session = self._sessions.get(name)
        if session is None or session.until <= now or session.moved:
            return None
        if used:
            session.until = min(now + session.idle, session.ends)
        return session

    def _changed(self, name: str, change: SessionChange) -> _Session | None:
        session = self._present(name, self._clock(), used=False)
        if session is None:
            return None
        fields = {field: value for field, value in session.fields.items() if field not in change.gone} | change.fields
        if session_size(fields) > change.most:
            raise session_too_large(change.most)
        session.fields = fields
        return self._present(name, self._clock(), used=True)

    def _pop(self, name: str) -> _Session | None:
        return self._sessions.pop(name, None)

    def _sweep(self, now: float) -> None:
        """Forget what has ended, each time that there are twice as many sessions as were left the last time."""
        if len(self._sessions) < self._many:
            return
        self._sessions = {name: session for name, session in self._sessions.items() if session.until > now}
        for user, listed in list(self._users.items()):
            self._users[user] = {name: ends for name, ends in listed.items() if ends > now}
            if not self._users[user]:
                del self._users[user]
        self._many = max(FEW, 2 * len(self._sessions))


_all: "weakref.WeakSet[MemorySessions]" = weakref.WeakSet()


def _after_fork() -> None:
    for sessions in list(_all):
        sessions.after_fork()


on_fork(in_child=_after_fork)
