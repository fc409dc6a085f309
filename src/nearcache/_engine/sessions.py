"""Sessions: how they begin, are found by their ids, change, get another id and end.

An engine never learns an id, which is as good as a password: it knows a session by the digest. Among the sessions of a
user are, at any time, all whose ids anybody was told, for whoever ends them all must miss none:

- one that begins is added to them before its id is told;
- one whose user changes is added before it is saved;
- one that gets another id is added under that before the old one is removed; and if the old one is gone by then, it was
  destroyed meanwhile, and so is the new one;
- whoever destroys them all looks again until no more have come.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from nearcache._core.arguments import canonical
from nearcache._core.events import Failure
from nearcache._core.ttl import TTL
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache._engine.session import MOST, Fields, Session
from nearcache.backends.base import Backend, require
from nearcache.backends.sessions import SessionChange, SessionRecord, Sessions, session_size, session_too_large
from nearcache.codecs.sealing import Sealing
from nearcache.errors import BackendError, CodecError, SessionLostError

USER: Final = "user_id"
"""The field that says whose session it is."""

OLDEST: Final = 30 * 86_400.0
"""Seconds that a session lives at most, unless it says more."""

ENGINES: Final = "memory, embedded, redis, memcached, hazelcast"
"""The engines that have sessions."""

_BYTES: Final = 32
_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch
"""What ids look like: so many bytes in URL-safe base64."""


class SessionVerbs:
    """The sessions of one cache through one backend."""

    def __init__(self, core: Core, backend: Backend, commands: Commands) -> None:
        self._core = core
        self._backend = backend
        self._run = commands.run
        self._fields = Fields(core.codec)
        self._sealing = Sealing(core.options.session_keys)

    @property
    def port(self) -> Sessions:
        """What the engine offers; raises `UnsupportedError` if that is nothing."""
        return require(self._backend.sessions, self._backend, "sessions", ENGINES)

    async def create(self, values: Mapping[str, Any], ttl: TTL, absolute: TTL | None) -> Session:
        """Begin a session with these fields."""
        idle = self._core.exact(ttl)
        oldest = min(max(OLDEST, idle), self._core.options.ttl_rules.maximum)
        left = oldest if absolute is None else self._core.exact(absolute, "absolute")
        session = Session(_new_id(), dict(values), {}, left)
        change = session.changes(self._fields)
        await self._begin(session.id, SessionRecord(idle, left, change.fields), _user(values))
        session.saved(change)
        return session

    async def load(self, id: str | None) -> Session | None:
        """Return a session, and let it live on."""
        name = _name(id)
        if id is None or name is None:
            return None
        (sealed,) = await self._run("session_load", self.port.load, [name], used=True)
        if (opened := self._opened(name, sealed)) is None:
            return None
        record, values = opened
        return Session(id, values, record.fields, record.left)

    async def save(self, session: Session) -> None:
        """Store what has changed; raises `SessionLostError` if the session is not there."""
        name, change = _digest(session.id), session.changes(self._fields)
        user = _user(session)
        if user is not None and USER.encode() in change.fields:
            await self._run("session_enlist", self.port.enlist, user, name, session.left)
        if not await self._run("session_save", self.port.save, name, self._sealed(name, change)):
            raise _lost()
        session.saved(change)

    async def rotate(self, session: Session) -> Session:
        """Store what has changed, and give the session another id."""
        name, id, change = _digest(session.id), _new_id(), session.changes(self._fields)
        began = self._core.clock()
        sealed = await self._run("session_move", self.port.move, name, self._sealed(name, change), _digest(id))
        if (opened := self._opened(name, sealed)) is None:
            raise _lost()
        record, values = opened
        record = replace(record, left=record.left - (self._core.clock() - began))  # it ends when it had to
        await self._begin(id, record, _user(values), name)
        if not await self._run("session_leave", self.port.leave, name, _digest(id)):
            with suppress(BackendError):  # nobody knows its id
                await self._destroy([_digest(id)])
            raise _lost()
        session.saved(change)
        session.moved(id, record.left)
        return session

    async def destroy(self, id: str | None) -> bool:
        """Remove a session, and tell whether there was one."""
        name = _name(id)
        return name is not None and await self._destroy([name]) > 0

    async def of(self, user_id: object) -> list[dict[str, Any]]:
        """Return the fields of each session of a user."""
        user = _user_of(user_id)
        names = await self._names_of(user)
        records = await self._run("session_load", self.port.load, names, used=False)
        found = [self._opened(name, record) for name, record in zip(names, records, strict=True)]
        await self._struck(user, [name for name, record in zip(names, records, strict=True) if record is None])
        return [each.values for each in found if each is not None and _user(each.values) == user]

    async def destroy_all(self, user_id: object, but: Session | None) -> int:
        """Remove the sessions of a user, except one, and return how many there were."""
        user, done = _user_of(user_id), {"" if but is None else _digest(but.id)}
        count = 0
        while names := [name for name in await self._names_of(user) if name not in done]:
            count += await self._destroy(names)
            await self._run("session_strike", self.port.strike, user, names)
            done.update(names)
        return count

    async def _begin(self, id: str, record: SessionRecord, user: str | None, before: str = "") -> None:
        """Store a session under a new id, and add it to those of its user."""
        name = _digest(id)
        change = self._sealed(name, SessionChange(record.fields, [], MOST))
        await self._run("session_create", self.port.create, name, replace(record, fields=change.fields))
        if user is not None:
            await self._run("session_enlist", self.port.enlist, user, name, record.left, before)

    async def _struck(self, user: str, names: list[str]) -> None:
        """Take sessions that have ended from those of a user; one that moves has not, or who ends all would miss it."""
        with suppress(BackendError):  # they are looked at again the next time
            if names and (absent := await self._run("session_absent", self.port.absent, names)):
                await self._run("session_strike", self.port.strike, user, absent)

    async def _names_of(self, user: str) -> list[str]:
        return await self._run("session_list", self.port.names_of, user)

    async def _destroy(self, names: list[str]) -> int:
        return await self._run("session_destroy", self.port.destroy, names)

    def _sealed(self, name: str, change: SessionChange) -> SessionChange:
        """Return a change as the engine gets it; raises `CodecError` if that is too large."""
        fields = self._sealing.seal(name, change.fields)
        if session_size(fields) > change.most:
            raise session_too_large(change.most)
        return replace(change, fields=fields)

    def _opened(self, name: str, sealed: SessionRecord | None) -> "_Opened | None":
        """Return what the engine keeps, None if it is nothing or cannot be read: then it is as if there was nothing."""
        if sealed is None:
            return None
        try:
            record = replace(sealed, fields=self._sealing.open(name, sealed.fields))
            return _Opened(record, self._fields.read(record.fields))
        except CodecError as error:
            self._core.emit(Failure("codec", "", type(error).__name__))
            return None


class _Opened(NamedTuple):
    """A session as it was before it was encrypted, and the values of its fields."""

    record: SessionRecord
    values: dict[str, Any]


def _new_id() -> str:
    return secrets.token_urlsafe(_BYTES)


def _name(id: object) -> str | None:
    """Return under which name the engine knows a session, None for what is no id."""
    return _digest(id) if isinstance(id, str) and _ID(id) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _user(values: Mapping[str, Any]) -> str | None:
    """Return under which name the engine knows the user of a session, None if it is nobody's."""
    user_id = values.get(USER)
    return None if user_id is None else _user_of(user_id)


def _user_of(user_id: object) -> str:
    return _digest(canonical(user_id, USER))


def _lost() -> SessionLostError:
    return SessionLostError("the session was destroyed, has expired, or has got another id; load it again")
