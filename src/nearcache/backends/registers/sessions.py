"""Sessions in an engine without scripts: each is one record, which is read, changed and swapped.

A swap is refused if somebody has changed the record meanwhile, and is tried again on what is there then: so those who
save keep each other's fields. A session that was destroyed has no record, and nobody adds one under its name again.

Times in records are milliseconds of the engine's time. Processes know it to `coarse` seconds, so that they may differ
by as much about the end of a session. The engine keeps a record for longer than its session lives.
"""

import math
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec
from msgspec.structs import replace

from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Registers, Step, Swap, good
from nearcache.backends.sessions import SessionChange, SessionRecord, session_size, session_too_large
from nearcache.errors import BackendError

T = TypeVar("T")

if TYPE_CHECKING:
    from nearcache.backends.registers.backend import RegisterBackend

MS: Final = 1_000

SLACK: Final = 60
"""Uses of a session are written once in this share of its idle life. It is given so much more each time, so that it
never ends too early.
"""
MOST_SLACK: Final = 60 * MS
"""Milliseconds that this is at most."""

MOVES: Final = 60 * MS
"""Milliseconds after which a session that moves is lost, if whoever moves it died."""

KEPT: Final = 2.0
"""Seconds that the engine keeps a record beyond the end of its session, since it may round seconds down."""

LISTED: Final = 366 * 86_400.0
"""Seconds that the list of a user's sessions is kept after it was changed, if none of them lives longer. It is the same
for all changes: of two at the same time, the engine may be told the life of the first after that of the second.
"""

MOST_LISTED: Final = 5_000
"""Sessions of one user, so that their list is far below the megabyte that a record may have."""

BATCH: Final = 100
"""Sessions that are looked at together when there are too many of one user."""

_Ms = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
_Found = tuple[SessionRecord | None]


class Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A session: it lives `idle` unused, and until `ends` at most; as things are, until `until`. No two states of a
    record have the same `salt`. `moved` is the name that it is about to get.
    """

    salt: bytes
    idle: _Ms
    ends: _Ms
    until: _Ms
    moved: str
    fields: dict[bytes, bytes]

    def told(self, now: int) -> SessionRecord:
        """Return it as it is told."""
        return SessionRecord(self.idle / MS, (self.ends - now) / MS, self.fields)

    def changed(self, change: SessionChange) -> "Stored":
        """Return it with a change; raises `CodecError` if that is too large."""
        fields = {name: value for name, value in self.fields.items() if name not in change.gone} | change.fields
        if session_size(fields) > change.most:
            raise session_too_large(change.most)
        return replace(self, fields=fields)

    def used(self, now: int) -> "Stored":
        """Return it as it lives on."""
        until = now + self.idle + min(MOST_SLACK, self.idle // SLACK)
        return replace(self, until=min(max(self.until, until), self.ends))

    def moving(self, now: int, to: str) -> "Stored":
        """Return it as nobody finds it any more."""
        return replace(self, until=min(now + MOVES, self.ends), moved=to)


class Listed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The sessions of a user, and when each ends in any case. No two states of a record have the same `salt`."""

    salt: bytes
    names: dict[str, _Ms]


Kind = TypeVar("Kind", Stored, Listed)


class RegisterSessions:
    """The port of sessions. Its registers may be others than those of the backend, over the same engine."""

    def __init__(self, backend: "RegisterBackend", registers: Registers, namespace: str) -> None:
        self._backend = backend
        self._registers = registers
        self._namespace = namespace

    async def create(self, name: str, record: SessionRecord) -> None:
        """Begin a session."""
        now = await self._now()
        stored = Stored(b"", _ms(record.idle), now + _ms(record.left), 0, "", record.fields).used(now)
        await self._take(Put(self._session(name), _packed(stored), self._life(stored.until - now)))

    async def load(self, names: Sequence[str], *, used: bool) -> list[SessionRecord | None]:
        """Read sessions."""
        if used:
            return [(await self._until_done(self._session(name), self._use))[0] for name in names]
        now, answers = await self._now(), await self._take(*[Look(self._session(name)) for name in names])
        found = [_present(answer, now) for answer in answers]
        return [None if stored is None else stored.told(now) for stored in found]

    async def save(self, name: str, change: SessionChange) -> bool:
        """Change a session that is there."""
        return await self.move(name, change, "") is not None

    async def move(self, name: str, change: SessionChange, to: str) -> SessionRecord | None:
        """Change a session for the last time."""
        (record,) = await self._until_done(self._session(name), partial(self._change, change, to))
        return record

    async def leave(self, name: str, to: str) -> bool:
        """Remove a session that has moved."""
        return await self._until_done(self._session(name), partial(self._leave, to))

    async def destroy(self, names: Sequence[str]) -> int:
        """Remove sessions."""
        now, records = await self._now(), [self._session(name) for name in names]
        answers = await self._take(*[step for record in records for step in (Look(record), Drop(record))])
        looks = map(_stored, answers[::2])
        return sum(
            drop.done and stored is not None and stored.until > now
            for stored, drop in zip(looks, answers[1::2], strict=True)
        )

    async def absent(self, names: Sequence[str]) -> list[str]:
        """Tell under which names there is nothing."""
        answers = await self._take(*[Look(self._session(name)) for name in names])
        return [name for name, answer in zip(names, answers, strict=True) if not answer.done]

    async def enlist(self, user: str, name: str, left: float, before: str = "") -> None:
        """Add a session to those of a user."""
        await self._until_done(self._sessions(user), partial(self._enlist, name, left, before))

    async def names_of(self, user: str) -> list[str]:
        """List the sessions of a user."""
        (answer,) = await self._take(Look(self._sessions(user)))
        return list(_listed(answer))

    async def strike(self, user: str, names: Sequence[str]) -> None:
        """Take sessions from those of a user."""
        if names:
            await self._until_done(self._sessions(user), partial(self._strike, frozenset(names)))

    # Single tries: they return None if others have crossed them

    async def _use(self, record: str) -> "_Found | None":
        """Read a session, and write that it was used, if that is worth a trip."""
        now, (answer,) = await self._now(), await self._take(Look(record))
        stored = _present(answer, now)
        if stored is None:
            return (None,)
        if stored.until < min(now + stored.idle, stored.ends):
            return await self._kept(record, answer, stored.used(now), now)
        return (stored.told(now),)

    async def _change(self, change: SessionChange, to: str, record: str) -> "_Found | None":
        now, (answer,) = await self._now(), await self._take(Look(record))
        stored = _present(answer, now, to)
        if stored is None:
            return (None,)
        changed = stored.changed(change)
        return await self._kept(record, answer, changed.moving(now, to) if to else changed.used(now), now)

    async def _kept(self, record: str, seen: Answer, stored: Stored, now: int) -> "_Found | None":
        swap = Swap(record, seen, _packed(stored), self._life(stored.until - now))
        return (stored.told(now),) if await self._is_done(swap) else None

    async def _leave(self, to: str, record: str) -> bool | None:
        now, (answer,) = await self._now(), await self._take(Look(record))
        stored = _stored(answer)
        if stored is None or stored.moved != to or stored.until <= now:
            return False
        return await self._is_done(Drop(record, answer)) or None

    async def _enlist(self, name: str, left: float, before: str, record: str) -> bool | None:
        now, (answer,) = await self._now(), await self._take(Look(record))
        apart = _ms(2 * self._registers.coarse)
        names = {each: ends for each, ends in _listed(answer).items() if ends > now - apart and each != before}
        names[name] = now + _ms(left)
        return await self._relist(record, answer, await self._bounded(names), now)

    async def _strike(self, names: frozenset[str], record: str) -> bool | None:
        now, (answer,) = await self._now(), await self._take(Look(record))
        listed = _listed(answer)
        left = {name: ends for name, ends in listed.items() if name not in names}
        if len(left) == len(listed):
            return True
        return await self._relist(record, answer, left, now)

    async def _relist(self, record: str, seen: Answer, names: dict[str, int], now: int) -> bool | None:
        """Store the list of a user's sessions, or nothing in its place if there are none."""
        if not names:
            return await self._is_done(Drop(record, seen)) or None
        raw = _packed(Listed(b"", names))
        life = self._life(max(LISTED * MS, *(ends - now for ends in names.values())))
        return await self._is_done(Swap(record, seen, raw, life) if seen.done else Add(record, raw, life)) or None

    async def _bounded(self, names: dict[str, int]) -> dict[str, int]:
        """Return a user's sessions, without some that are no more if they are too many."""
        if len(names) <= MOST_LISTED:
            return names
        for batch in _batches(list(names)[:-1]):
            if absent := frozenset(await self.absent(batch)):
                return {name: ends for name, ends in names.items() if name not in absent}
        raise _too_many()

    # Records

    async def _until_done(self, record: str, take: Callable[[str], Awaitable[T | None]]) -> T:
        return await self._backend.turns.until_done(record, lambda _first: take(record))

    async def _take(self, *steps: Step) -> list[Answer]:
        return good(await self._registers.run(*steps))

    async def _is_done(self, step: Step) -> bool:
        (answer,) = await self._take(step)
        return answer.done

    async def _now(self) -> int:
        """Return the engine's time: the middle of what it may be.

        It is asked for if need be. If the node that tells it does not answer, what is known does.
        """
        time = self._backend.time
        if time.due():
            with suppress(*([BackendError] if time.known else [])):
                await self._backend.learn_time()
        return int((time.earliest() + time.latest()) / 2 * MS)

    def _life(self, ms: float) -> float:
        """Return for how many seconds the engine is to keep a record that has to last so long."""
        seconds = ms / MS + KEPT
        return seconds if seconds <= self._registers.longest else math.inf

    def _session(self, name: str) -> str:
        return f"{sessions_in(self._namespace)}:{name}"

    def _sessions(self, user: str) -> str:
        return f"{sessions_in(self._namespace)}:u:{user}"


def sessions_in(namespace: str) -> str:
    """Return what the names of a namespace's sessions, and of their users' lists, begin with, before a colon."""
    return f"{namespace}~s"


def _present(answer: Answer, now: int, to: str = "") -> Stored | None:
    """Return the session of an answer, None if it has ended, or moves to another name than `to`."""
    stored = _stored(answer)
    return None if stored is None or stored.until <= now or stored.moved not in ("", to) else stored


def _ms(seconds: float) -> int:
    return max(1, math.floor(seconds * MS))


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(names), BATCH):
        yield names[at : at + BATCH]


def _too_many() -> BackendError:
    why = f"a user has at most {MOST_LISTED:,} sessions on this engine; end some of them with destroy_all"
    return BackendError(why).undone()


_out = msgspec.msgpack.Encoder()
_sessions = msgspec.msgpack.Decoder(Stored)
_lists = msgspec.msgpack.Decoder(Listed)


def _packed(record: Stored | Listed) -> bytes:
    """Return what is stored; never the same twice."""
    return _out.encode(replace(record, salt=os.urandom(8)))


def _stored(answer: Answer) -> Stored | None:
    """Return the session that an answer brought, None if it is none."""
    return _read(_sessions, answer)


def _listed(answer: Answer) -> dict[str, int]:
    """Return the sessions of a user that an answer brought, none if they are none."""
    found = _read(_lists, answer)
    return {} if found is None else found.names


def _read(decoder: "msgspec.msgpack.Decoder[Kind]", answer: Answer) -> "Kind | None":
    try:
        return None if answer.raw is None else decoder.decode(answer.raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
