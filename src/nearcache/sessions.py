"""What a cache offers for sessions: `Sessions` for threads, `AsyncSessions` for asyncio."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from nearcache._core.ttl import TTL
from nearcache._engine.engine import Engine
from nearcache._engine.session import Session
from nearcache._io.blocking import drive

NO_FIELDS: Final[Mapping[str, Any]] = MappingProxyType({})


class Sessions:
    """The sessions of one cache: every method blocks until it is done."""

    def __init__(self, engine: Engine) -> None:
        _ = engine.sessions.port
        self._engine = engine

    def create(
        self, values: Mapping[str, Any] = NO_FIELDS, *, ttl: TTL = "session", absolute: TTL | None = None
    ) -> Session:
        """Begin a session with these fields, and return it with its new id.

        Args:
            values: the fields by name; values of every type that can be cached. The field "user_id" says whose session
            it is.
            ttl: how long it lives after it was last loaded, saved or rotated. Default: the class "session", 24 hours.
            absolute: how long it lives at most, however often it is used. Default None: 30 days, or `ttl` if that is
            longer.

        Raises:
            CodecError: a value cannot be stored, or all of them have more than 65,536 bytes.
            InvalidKeyError: the "user_id" is of a type that cannot be part of a key.
            BackendError: the engine does not answer, or refuses.

        """
        return drive(self._engine.sessions.create(values, ttl, absolute))

    def load(self, id: str | None) -> Session | None:
        """Return the session with an id, or None if there is none.

        None is also the answer for what is no id, and for a record that cannot be read. The session lives on from now.
        Raises `BackendError` if the engine does not answer, or refuses. One round trip; on Memcached and Hazelcast
        two or three now and then.
        """
        return drive(self._engine.sessions.load(id))

    def save(self, session: Session) -> None:
        """Store the fields that have changed since the session was loaded, and leave all others as they are.

        So of two that save at the same time each keeps what it has changed; a field that both have changed has the
        value of the last. Raises `SessionLostError` if the session was destroyed, has expired or has got another id,
        `CodecError` if a value cannot be stored or the session would have more than 65,536 bytes, and `BackendError` if
        the engine does not answer, or refuses. One round trip, two when "user_id" has changed; more on Memcached and
        Hazelcast.
        """
        drive(self._engine.sessions.save(session))

    def rotate(self, session: Session) -> Session:
        """Store what has changed, give the session another id, and return it; the old id is no session's any more.

        To be called when somebody logs in, so that an id that was known before is worth nothing. Raises like `save`; if
        it fails, the session may be lost. Three round trips, four if it is somebody's; more on Memcached and Hazelcast.
        """
        return drive(self._engine.sessions.rotate(session))

    def destroy(self, id: str | None) -> bool:
        """Remove the session with an id, and tell whether there was one.

        Nobody who still has it can save it. Raises `BackendError` if the engine does not answer, or refuses.
        """
        return drive(self._engine.sessions.destroy(id))

    def of(self, user_id: object) -> list[dict[str, Any]]:
        """Return the fields of each session whose "user_id" is this one, without their ids, which nobody knows.

        One round trip for their list, one for them, and two more if some of them have ended since the last time.
        """
        return drive(self._engine.sessions.of(user_id))

    def destroy_all(self, user_id: object, *, but: Session | None = None) -> int:
        """Remove all sessions whose "user_id" is this one, except `but`, and return how many there were.

        Also such as are rotated at the moment, and such as had this "user_id" once. Raises `BackendError` if the engine
        does not answer, or refuses; then some may be left.
        """
        return drive(self._engine.sessions.destroy_all(user_id, but))


class AsyncSessions:
    """The sessions of one cache for asyncio: the twin of `Sessions`."""

    def __init__(self, engine: Engine) -> None:
        _ = engine.sessions.port
        self._engine = engine

    async def create(
        self, values: Mapping[str, Any] = NO_FIELDS, *, ttl: TTL = "session", absolute: TTL | None = None
    ) -> Session:
        """Begin a session with these fields, and return it with its new id."""
        return await self._engine.sessions.create(values, ttl, absolute)

    async def load(self, id: str | None) -> Session | None:
        """Return the session with an id, or None if there is none."""
        return await self._engine.sessions.load(id)

    async def save(self, session: Session) -> None:
        """Store the fields that have changed since the session was loaded, and leave all others as they are."""
        await self._engine.sessions.save(session)

    async def rotate(self, session: Session) -> Session:
        """Store what has changed, give the session another id, and return it; the old id is no session's any more."""
        return await self._engine.sessions.rotate(session)

    async def destroy(self, id: str | None) -> bool:
        """Remove the session with an id, and tell whether there was one."""
        return await self._engine.sessions.destroy(id)

    async def of(self, user_id: object) -> list[dict[str, Any]]:
        """Return the fields of each session whose "user_id" is this one, without their ids, which nobody knows."""
        return await self._engine.sessions.of(user_id)

    async def destroy_all(self, user_id: object, *, but: Session | None = None) -> int:
        """Remove all sessions whose "user_id" is this one, except `but`, and return how many there were."""
        return await self._engine.sessions.destroy_all(user_id, but)
