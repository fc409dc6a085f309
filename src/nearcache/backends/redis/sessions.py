"""Sessions in Redis and Valkey: each is a hash, so that one script changes some of its fields and leaves the others.

Of a session only the digest of its id is known here, which is its name. In the namespace `app` it has the record
`{app:<name>}~s`, and the names of a user's sessions are in `{app:<digest of the user>}~u`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from nearcache.backends.redis.errors import MISSHAPEN, good, in_part, unexpected, whole
from nearcache.backends.redis.names import session_of, sessions_of
from nearcache.backends.sessions import SessionChange, SessionRecord, session_too_large

if TYPE_CHECKING:
    from nearcache.backends.redis.backend import RedisBackend

SUBJECT: Final = "a session"
"""What errors are about: they name none."""

TOO_LARGE: Final = -1

NOTHING: Final = -2
"""What PTTL says of a record that is not there."""


class RedisSessions:
    """The port of sessions."""

    def __init__(self, backend: "RedisBackend") -> None:
        self._backend = backend

    async def create(self, name: str, record: SessionRecord) -> None:
        """Begin a session."""
        words: list[str | bytes] = [_ms(record.idle), _ms(record.left), *_pairs(record.fields)]
        await self._evaluate("session_create", self._session(name), *words)

    async def load(self, names: Sequence[str], *, used: bool) -> list[SessionRecord | None]:
        """Read sessions."""
        calls = [((self._session(name),), ("1" if used else "0",)) for name in names]
        replies = await self._backend.evaluate("session_load", calls, SUBJECT) if calls else []
        return [None if reply is None else _record(reply) for reply in replies]

    async def save(self, name: str, change: SessionChange) -> bool:
        """Change a session that is there."""
        return bool(await self._save(name, change, "") == 1)

    async def move(self, name: str, change: SessionChange, to: str) -> SessionRecord | None:
        """Change a session for the last time."""
        reply = await self._save(name, change, to)
        return None if reply == 0 else _record(reply)

    async def leave(self, name: str, to: str) -> bool:
        """Remove a session that has moved."""
        return bool(await self._evaluate("session_leave", self._session(name), to) == 1)

    async def destroy(self, names: Sequence[str]) -> int:
        """Remove sessions."""
        if not names:
            return 0
        (reply,) = await self._backend.run(("DEL", *map(self._session, names)))
        if isinstance(reply, Exception):
            raise in_part([SUBJECT] * len(names), reply)
        return whole(reply, SUBJECT)

    async def absent(self, names: Sequence[str]) -> list[str]:
        """Tell under which names there is nothing."""
        replies = await self._backend.run(*[("PTTL", self._session(name)) for name in names]) if names else []
        return [name for name, reply in zip(names, replies, strict=True) if good(reply, SUBJECT) == NOTHING]

    async def enlist(self, user: str, name: str, left: float, before: str = "") -> None:
        """Add a session to those of a user."""
        await self._evaluate("session_enlist", self._sessions(user), name, _ms(left), before)

    async def names_of(self, user: str) -> list[str]:
        """List the sessions of a user."""
        (reply,) = await self._backend.run(("ZRANGE", self._sessions(user), "0", "-1"))
        names = good(reply, SUBJECT)
        try:
            return [name.decode() for name in names]
        except MISSHAPEN:
            unexpected(names, SUBJECT)

    async def strike(self, user: str, names: Sequence[str]) -> None:
        """Take sessions from those of a user."""
        if names:
            (reply,) = await self._backend.run(("ZREM", self._sessions(user), *names))
            good(reply, SUBJECT)

    async def _save(self, name: str, change: SessionChange, to: str) -> Any:
        count = str(len(change.fields))
        words: list[str | bytes] = [str(change.most), to, count, *_pairs(change.fields), *change.gone]
        reply = await self._evaluate("session_save", self._session(name), *words)
        if reply == TOO_LARGE:
            raise session_too_large(change.most)
        return reply

    async def _evaluate(self, script: str, record: str, *arguments: str | bytes) -> Any:
        (reply,) = await self._backend.evaluate(script, [((record,), arguments)], SUBJECT)
        return reply

    def _session(self, name: str) -> str:
        return session_of(self._backend.named(name))

    def _sessions(self, user: str) -> str:
        return sessions_of(self._backend.named(user))


def _pairs(fields: dict[bytes, bytes]) -> list[bytes]:
    return [word for pair in fields.items() for word in pair]


def _ms(seconds: float) -> str:
    return str(max(1, math.floor(seconds * 1000)))


def _record(reply: Any) -> SessionRecord:
    match reply:
        case [int(idle), int(left), *flat] if len(flat) % 2 == 0 and all(type(word) is bytes for word in flat):
            return SessionRecord(idle / 1000, left / 1000, dict(zip(flat[::2], flat[1::2], strict=True)))
        case _:
            return unexpected(reply, SUBJECT)
