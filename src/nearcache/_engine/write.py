"""Writing: every write is encoded before anything is sent, and the near tier follows the engine's answer.

A write that may or may not have reached the engine (a timeout, a cancellation) is never repeated: a late one could
land on a newer value. The key becomes a debt instead, see `commands.py`.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._core.ttl import TTL
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core, new_fill_id
from nearcache._engine.modes import Mode
from nearcache._engine.read import Reader
from nearcache._io.port import Io
from nearcache.backends.base import Backend, Item, require
from nearcache.codecs.codec import COUNTER, Encoded, Record
from nearcache.codecs.envelope import NO_SCHEMA, pack, pack_ages
from nearcache.codecs.near import size_of
from nearcache.codecs.schema import Schema
from nearcache.errors import BackendError, CodecError

INT64 = range(-(1 << 63), 1 << 63)


class Draft(msgspec.Struct, frozen=True):
    """An encoded value that waits for its birth."""

    key: str
    value: Any
    encoded: Encoded
    schema: Schema | None
    ttl: float
    cost: float


class Writer:
    """Writes of one cache through one backend."""

    def __init__(self, core: Core, backend: Backend, commands: Commands, reader: Reader) -> None:
        self._core = core
        self._backend = backend
        self._commands = commands
        self._reader = reader

    # Verbs

    async def set(self, key: str, value: Any, ttl: TTL) -> None:
        """Store a value; raises `CodecError` before anything is sent, `BackendError` when the engine fails."""
        await self.put(self.draft(self._core.check(key), value, self._core.jittered(ttl), None))

    async def set_many(self, mapping: Mapping[str, Any], ttl: TTL) -> None:
        """Store several values in one round trip."""
        core = self._core
        drafts = [self.draft(core.check(key), value, core.jittered(ttl), None) for key, value in mapping.items()]
        if not drafts or not self._stores():
            return
        born = await self._born()
        items = [self.seal(draft, born) for draft in drafts]
        with self._writing(*mapping):
            await self._commands.run("set_many", self._backend.set_many, items)
            self._changed(*mapping)

    async def add(self, key: str, value: Any, ttl: TTL) -> bool:
        """Store a value only if there is no fresh one; tell whether it was stored."""
        draft = self.draft(self._core.check(key), value, self._core.jittered(ttl), None)
        if not self._stores():
            return False
        dead = await self._reader.dead(key)
        item = self.seal(draft, await self._born())
        with self._writing(key):
            added = await self._commands.run("add", self._backend.add, item, dead)
            if added:
                self._changed(key)
        return added

    async def delete(self, keys: Iterable[str]) -> int:
        """Remove values; return how many there were. A load of them that runs now is not stored by this process."""
        doomed = self._core.check_all(keys)
        if not doomed or self._core.mode() is Mode.OFF:
            return 0
        with self._core.flights.changing(*doomed):
            self._changed(*doomed)
            try:
                return await self._commands.run("delete", self._backend.delete, doomed)
            except BaseException:
                self._core.owe(*doomed)
                raise
            finally:
                self._changed(*doomed)

    async def touch(self, key: str, ttl: TTL) -> bool:
        """Give a fresh value a new time to live, from now on; False if there is none."""
        seconds = self._core.jittered(ttl)
        self._core.check(key)
        if not self._stores():
            return False
        fill_id, ages = b"", b""
        if self._core.codec.enveloped:
            record = await self._reader.record(key)
            if not isinstance(record, Record):
                return False
            lives = max(0.0, self._backend.time.earliest() - record.born) + seconds
            fill_id, ages = record.fill_id, pack_ages(lives, lives)
        touched = await self._commands.run("touch", self._backend.touch, key, seconds, fill_id, ages)
        self._core.near.changed(key)
        return touched

    async def incr(self, key: str, by: int, ttl: TTL) -> int:
        """Add to an integer and return the sum; an absent one counts as 0 and gets the TTL, without jitter."""
        counters = require(self._backend.counters, self._backend, "counters", "memory, embedded, redis")
        self._core.check(key)
        _check_step(key, by)
        seconds = self._core.exact(ttl)
        if not self._stores():
            return by
        dead = await self._reader.dead(key)
        fresh = self._counter_header(seconds, await self._born()) if self._core.codec.enveloped else b""
        with self._core.flights.changing(key):
            try:
                return await self._commands.run("incr", counters.incr, key, by, fresh, seconds, dead)
            finally:
                self._changed(key)  # no debt: counted or not, the engine's number is right

    async def write_through(
        self, io: Io, key: str, source: Callable[[], Any], value: Any, ttl: TTL, schema: Schema | None = None
    ) -> Outcome[Any]:
        """Write the source, then the cache: what the source returned, or `value` if that is None (MISS: only
        invalidate).

        If the source fails nothing changes here; if it is interrupted nobody knows whether it was written, and the key
        becomes a debt. So it does if the cache fails, and the write still counts.
        """
        core = self._core
        core.check(key)
        seconds = core.jittered(ttl)
        cached = value
        try:
            written = await io.user(source)
            if written.abandoned:
                core.owe(key)
            if written.error is not None:
                return written
            cached = value if (result := written.get()) is None else result
            if core.mode() is not Mode.OFF:
                await self._follow_source(key, cached, seconds, schema)
        except BackendError:
            core.owe(key)
        except BaseException as error:  # noqa: BLE001 -- the source was written: the cache must not keep the old value
            core.owe(key)
            return Outcome(error=error)
        return Outcome(None if cached is MISS else cached)

    async def _follow_source(self, key: str, value: Any, seconds: float, schema: Schema | None) -> None:
        if value is MISS or self._core.mode() is Mode.DISABLED:
            await self.delete([key])
            return
        with self._core.flights.changing(key):
            self._changed(key)
            stamp = self._core.near.stamp(key)
            await self.store(self.draft(key, value, seconds, schema), stamp)

    # What the other verbs build on

    def draft(self, key: str, value: Any, ttl: float, schema: Schema | None, cost: float = 0.0) -> Draft:
        """Encode a value; raises `CodecError` naming the key when it would not come back as it is."""
        try:
            return Draft(key, value, self._core.codec.encode(value, schema), schema, ttl, cost)
        except CodecError as error:
            raise CodecError(f"the value for {key!r} cannot be cached: {error}") from error

    def seal(self, draft: Draft, born: float) -> Item:
        """Turn a draft into a record that is born at `born`, in the engine's time."""
        raw = self._core.codec.seal(
            draft.encoded,
            fill_id=new_fill_id(),
            epoch=0,
            born=born,
            soft=draft.ttl,
            hard=draft.ttl,
            cost=draft.cost,
            tags=(),
        )
        return Item(draft.key, raw, draft.ttl)

    async def put(self, draft: Draft) -> None:
        """Store a draft because somebody says so, not because it was loaded."""
        if self._stores():
            with self._core.flights.changing(draft.key):
                await self.store(draft, self._core.near.stamp(draft.key))

    async def store(self, draft: Draft, stamp: int) -> None:
        """Store a draft and keep it near, unless another write of the key overlapped since `stamp` was taken."""
        core = self._core
        time = self._backend.time
        item = self.seal(draft, time.earliest() if time.known else await self._born())
        asked = core.clock()
        try:
            await self._commands.run("set", self._backend.set, item)
            # In here too: an interrupt after the engine's answer must not leave the old value near.
            if core.keeps:
                state, copier = core.form(draft.value, draft.encoded, draft.schema)
                deadline = core.near_deadline(asked, item.ttl, self._backend.shared)
                size = size_of(state, len(item.raw))
                core.near.wrote(item.key, state, copier, deadline, size, stamp, draft.schema)
        except BaseException as error:
            self._failed(error, item.key)
            raise

    @contextmanager
    def _writing(self, *keys: str) -> Generator[None]:
        """Keep loads of these keys from storing, and turn the keys into debts if nobody knows what the engine did."""
        with self._core.flights.changing(*keys):
            try:
                yield
            except BaseException as error:
                self._failed(error, *keys)
                raise

    def _failed(self, error: BaseException, *keys: str) -> None:
        """Turn the keys of a write that failed into debts, unless it is certain that it never reached the engine."""
        if isinstance(error, BackendError) and not error.ambiguous:
            self._changed(*keys)  # of several, some may have been stored
        elif not isinstance(error, CodecError):
            self._core.owe(*keys)

    def _stores(self) -> bool:
        return self._core.mode() in (Mode.NORMAL, Mode.BYPASS)

    def _changed(self, *keys: str) -> None:
        for key in keys:
            self._core.near.changed(key)

    async def _born(self) -> float:
        if not self._backend.time.known:
            await self._commands.run("open", self._backend.open)
        return self._backend.time.earliest()

    def _counter_header(self, ttl: float, born: float) -> bytes:
        return pack(
            Record(
                flags=0,
                fill_id=new_fill_id(),
                epoch=0,
                born=born,
                soft=ttl,
                hard=ttl,
                cost=0.0,
                codec=COUNTER,
                schema=NO_SCHEMA,
                tags=(),
            )
        )


def _check_step(key: str, by: object) -> None:
    if type(by) is not int:
        raise CodecError(f"the step of {key!r} is a {type(by).__name__}; it must be an int")
    if by not in INT64:
        raise CodecError(f"the step of {key!r} does not fit into 64 bits")
