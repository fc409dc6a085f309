"""Writing: every write is encoded before anything is sent, and the near tier follows the engine's answer.

A write that may or may not have reached the engine (a timeout, a cancellation) is never repeated: a late one could
land on a newer value. The key becomes a debt instead, see `commands.py`.
"""

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._core.queued import QUEUED, Queued
from nearcache._core.ttl import TTL
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core, new_fill_id, new_token
from nearcache._engine.found import REPLACEABLE
from nearcache._engine.modes import Mode
from nearcache._engine.read import Reader
from nearcache._io.port import Io, require_mapping
from nearcache.backends.base import GONE, Ask, Backend, Counters, Item, failing, require
from nearcache.codecs.codec import COUNTER, Encoded, Record
from nearcache.codecs.envelope import FILL_ID, NO_SCHEMA, pack, pack_ages
from nearcache.codecs.near import size_of
from nearcache.codecs.schema import Schema
from nearcache.errors import BackendError, CodecError

Tagger = Callable[[Any], tuple[str, ...]]
"""Returns the tags of a value."""

INT64 = range(-(1 << 63), 1 << 63)


class Draft(msgspec.Struct, frozen=True):
    """An encoded value that waits for its birth."""

    key: str
    value: Any
    encoded: Encoded
    schema: Schema | None
    ttl: float
    cost: float
    tags: tuple[str, ...]
    kept: float
    """Seconds that it is kept after it is no longer fresh."""


class Writer:
    """Writes of one cache through one backend."""

    def __init__(self, core: Core, backend: Backend, commands: Commands, reader: Reader) -> None:
        self._core = core
        self._backend = backend
        self._commands = commands
        self._reader = reader

    # Verbs

    async def set(self, key: str, value: Any, ttl: TTL, tags: Iterable[str]) -> None:
        """Store a value; raises `CodecError` before anything is sent, `BackendError` when the engine fails."""
        core = self._core
        await self.put(self.draft(core.check(key), value, core.jittered(ttl), None, tags=core.check_tags(tags)))

    async def set_many(self, mapping: Mapping[str, Any], ttl: TTL, tags: Iterable[str]) -> None:
        """Store several values in one round trip."""
        core, names = self._core, self._core.check_tags(tags)
        require_mapping(mapping, "set_many")
        drafts = [
            self.draft(core.check(key), value, core.jittered(ttl), None, tags=names) for key, value in mapping.items()
        ]
        await self.put_many(drafts)

    async def add(self, key: str, value: Any, ttl: TTL) -> bool:
        """Store a value only if there is no fresh one; tell whether it was stored."""
        draft = self.draft(self._core.check(key), value, self._core.jittered(ttl), None)
        if not self._stores():
            return False
        if await self._add(draft, await self._reader.dead(key) if self._backend.time.simulated else b""):
            return True
        # What is in the way may be past its age, invalid, or no record at all: nobody is served from it.
        dead = await self._reader.dead(key, REPLACEABLE)
        return dead != b"" and await self._add(draft, dead)

    async def _add(self, draft: Draft, dead: bytes) -> bool:
        epoch = await self._epoch()
        item = self.seal(draft, epoch)
        with self._writing(draft.key):
            added = await self._commands.run("add", self._backend.add, item, dead)
            if added:
                self._core.changed(draft.key)
        if added and not self._current(epoch, ()):
            return await self._add(draft, item.raw[FILL_ID])  # everything was invalidated just before
        return added

    async def delete(self, keys: Iterable[str]) -> int | Queued:
        """Remove values; return how many there were. No load of them that began before is stored.

        An engine that cannot be reached is told later; one that answers and refuses is an error. Either way nothing is
        served for these keys before it was done.
        """
        doomed = self._core.check_all(keys)
        if not doomed or self._core.mode() is Mode.OFF:
            return 0
        self._core.changed(*doomed)
        try:
            removed = await self._commands.run("delete", self._backend.delete, doomed)
            self._core.invalidated(doomed)
        except BaseException as error:
            failed = failing(error, doomed)
            self._core.owe(*failed)
            if len(failed) < len(doomed):
                self._core.invalidated(set(doomed).difference(failed))
            if not self._queues(error):
                raise
            return QUEUED
        finally:
            self._core.changed(*doomed)
        return removed

    async def invalidate(self, tags: Iterable[str], everything: bool) -> Queued | None:
        """Invalidate all values of these tags, or all values, that were loaded or written before; see `delete`."""
        core = self._core
        names = core.check_tags(tags)
        core.require_marks("clear" if everything else "tags", everything or bool(names))
        if not (names or everything) or core.mode() is Mode.OFF:
            return None
        core.start()
        core.marked(names, everything)
        try:
            await self._commands.run("invalidate", self._backend.marks.mark, names, everything)
            core.invalidated(())
        except BaseException as error:
            core.owe_marks(names, everything)
            if not self._queues(error):
                raise
            return QUEUED
        finally:
            core.marked(names, everything)
        return None

    def _queues(self, error: BaseException) -> bool:
        """Tell whether an invalidation that failed is no error, because it is repeated when the engine answers; see to
        it that somebody finds out when that is.
        """
        queues = isinstance(error, GONE) and self._core.options.policy.invalidate == "queue"
        if queues:
            self._core.coherence.seek()
        return queues

    async def touch(self, key: str, ttl: TTL) -> bool:
        """Give a fresh value a new time to live, from now on; False if there is none."""
        seconds = self._core.jittered(ttl)
        self._core.check(key)
        if not self._stores():
            return False
        fill_id, ages, held = b"", b"", seconds
        if self._core.codec.enveloped:
            record = await self._reader.record(key)
            if not isinstance(record, Record):
                return False
            lives = max(0.0, self._backend.time.earliest() - record.born) + seconds
            kept = record.hard - record.soft
            fill_id, ages, held = record.fill_id, pack_ages(lives, lives + kept), seconds + kept
        try:
            return await self._commands.run("touch", self._backend.touch, key, held, fill_id, ages)
        finally:
            self._core.near.changed((key,))

    async def incr(self, key: str, by: int, ttl: TTL) -> int:
        """Add to an integer and return the sum; an absent one counts as 0 and gets the TTL, without jitter."""
        counters = require(self._backend.counters, self._backend, "counters", "memory, embedded, redis")
        self._core.check(key)
        _check_step(key, by)
        seconds = self._core.exact(ttl)
        if not self._stores():
            return by
        return await self._incr(counters, key, by, seconds)

    async def _incr(self, counters: Counters, key: str, by: int, seconds: float) -> int:
        dead, epoch = await self._reader.dead(key), await self._epoch()
        fresh = self._counter_header(seconds, epoch) if self._core.codec.enveloped else b""
        self._core.changed(key)
        try:
            total = await self._commands.run("incr", counters.incr, key, by, fresh, seconds, dead)
        finally:
            self._core.changed(key)  # no debt: counted or not, the engine's number is right
        if self._core.view.last != epoch and await self._reader.dead(key):
            return await self._incr(counters, key, by, seconds)  # what was added to had been invalidated just before
        return total

    async def write_through(
        self, io: Io, key: str, source: Callable[[], Any], value: Any, ttl: TTL, schema: Schema | None, tag: Tagger
    ) -> Outcome[Any]:
        """Write the source, then the cache: what the source returned, or `value` if that is None (MISS: only
        invalidate).

        If the source fails nothing changes here; if it is interrupted nobody knows whether it was written, and the key
        becomes a debt. So it does if the cache fails, and the write still counts.

        A lease is taken before the source is written. Whoever writes or invalidates the key meanwhile revokes it, and
        then nothing is stored: nobody knows which of the two was the last in the source.
        """
        core = self._core
        core.check(key)
        seconds = core.jittered(ttl)
        cached, token = value, ""
        try:
            token, epoch = await self._begin(key), core.view.last
            written = await io.user(source)
            if written.abandoned:
                core.owe(key)
            if written.error is not None:
                await self._give_up(key, token)
                return written
            cached = value if (result := written.get()) is None else result
            if core.mode() is not Mode.OFF:
                await self._follow_source(key, cached, seconds, schema, tag, token, epoch)
        except BackendError:
            core.owe(key)
        except BaseException as error:  # noqa: BLE001 -- the source was written: the cache must not keep the old value
            core.owe(key)
            return Outcome(error=error)
        finally:
            self._backend.leases.let_go(token)
        return Outcome(None if cached is MISS else cached)

    async def _begin(self, key: str) -> str:
        """Take the lease of a key that is going to be written; "" where there is no cache or no engine."""
        if self._core.mode() not in (Mode.NORMAL, Mode.BYPASS):
            return ""
        leases, token, bound = self._backend.leases, new_token(), self._core.options.hard_timeout
        try:
            await self._commands.run("steal", leases.steal, Ask(key, token, b"", min(leases.life, bound)))
        except BackendError:
            return ""
        leases.hold(key, token, time.monotonic() + bound)
        return token

    async def _give_up(self, key: str, token: str) -> None:
        if token:
            with suppress(BackendError):
                await self._commands.run("release", self._backend.leases.release, key, token, "retry")

    async def _follow_source(
        self, key: str, value: Any, seconds: float, schema: Schema | None, tag: Tagger, token: str, epoch: int
    ) -> None:
        core = self._core
        if value is MISS or not token:
            await self.delete([key])
            return
        core.changed(key)
        draft = self.draft(key, value, seconds, schema, tags=tag(value))
        item, stamp, asked = self.seal(draft, epoch), core.near.stamp(key), core.clock()
        stored = await self._commands.run("commit", self._backend.leases.commit, item, token)
        core.invalidated((key,))
        if stored:
            self.keep(draft, item, asked, stamp, epoch)
        else:
            core.changed(key)  # what was read meanwhile is older than the source
        core.flights.detach((key,))

    # What the other verbs build on

    def draft(
        self,
        key: str,
        value: Any,
        ttl: float,
        schema: Schema | None,
        cost: float = 0.0,
        tags: tuple[str, ...] = (),
        kept: float | None = None,
    ) -> Draft:
        """Encode a value; raises `CodecError` naming the key when it would not come back as it is."""
        try:
            encoded = self._core.codec.encode(value, schema)
            return Draft(key, value, encoded, schema, ttl, cost, tags, self._core.kept if kept is None else kept)
        except CodecError as error:
            raise CodecError(f"the value for {key!r} cannot be cached: {error}") from error

    def seal(self, draft: Draft, epoch: int) -> Item:
        """Turn a draft into a record that is born now, in the engine's time; no invalidation after `epoch` is known to
        it.
        """
        raw = self._core.codec.seal(
            draft.encoded,
            fill_id=new_fill_id(),
            epoch=epoch,
            born=self._backend.time.earliest(),
            soft=draft.ttl,
            hard=draft.ttl + draft.kept,
            cost=draft.cost,
            tags=draft.tags,
        )
        return Item(draft.key, raw, draft.ttl + draft.kept)

    async def put(self, draft: Draft) -> None:
        """Store a draft because somebody says so, not because it was loaded."""
        if not self._stores():
            return
        core, key, valid = self._core, draft.key, False
        core.changed(key)
        epoch = core.view.last if self._backend.time.known else await self._epoch()
        try:
            while not valid:
                item, stamp, asked = self.seal(draft, epoch), core.near.stamp(key), core.clock()
                await self._commands.run("set", self._backend.set, item)
                # In here too: an interrupt after the engine's answer must not leave the old value near.
                self.keep(draft, item, asked, stamp, epoch)
                # An invalidation that was acknowledged before this call must not make its value invalid.
                epoch, valid = core.view.last, self._current(epoch, draft.tags)
        except BaseException as error:
            self._failed(error, key)
            raise
        finally:
            core.flights.detach((key,))

    async def put_many(self, drafts: Sequence[Draft]) -> None:
        """Store drafts in one round trip because somebody says so, not because they were loaded."""
        if not drafts or not self._stores():
            return
        keys, tags = [draft.key for draft in drafts], tuple({tag for draft in drafts for tag in draft.tags})
        epoch, valid = await self._epoch(), False
        with self._writing(*keys):
            while not valid:
                items = [self.seal(draft, epoch) for draft in drafts]
                await self._commands.run("set_many", self._backend.set_many, items)
                epoch, valid = self._core.view.last, self._current(epoch, tags)
            self._core.changed(*keys)

    def keep(self, draft: Draft, item: Item, asked: float, stamp: int, epoch: int) -> bool:
        """Keep near what the engine has just stored, unless another change of the key overlapped since `stamp` was
        taken, or it is invalid already; tell whether it is valid.
        """
        core = self._core
        if not self._current(epoch, draft.tags):
            core.near.changed((draft.key,))
            return False
        if core.keeps:
            state, copier = core.form(draft.value, draft.encoded, draft.schema)
            deadline = core.near_deadline(asked, draft.ttl, self._backend.shared, draft.cost)
            size = size_of(state, len(item.raw))
            number = core.number(item.raw[FILL_ID] if core.codec.enveloped else item.raw)
            core.near.wrote(item.key, state, copier, deadline, size, stamp, draft.schema, draft.tags, number)
        return True

    def _current(self, epoch: int, tags: Sequence[str]) -> bool:
        """Tell whether no invalidation of these tags after `epoch` is known, nor could be."""
        view = self._core.view
        return epoch >= view.last or (not view.unknown(epoch, tags) and view.holds(epoch, tags))

    @contextmanager
    def _writing(self, *keys: str) -> Generator[None]:
        """Let nobody join an older load of these keys, and turn the keys into debts if nobody knows what the engine
        did.
        """
        self._core.flights.detach(keys)
        try:
            yield
        except BaseException as error:
            self._failed(error, *keys)
            raise
        finally:
            self._core.flights.detach(keys)

    def _failed(self, error: BaseException, *keys: str) -> None:
        """Turn the keys of a write that failed into debts, unless it is certain that it never reached the engine."""
        if isinstance(error, CodecError):
            return
        self._core.changed(*keys)  # of several, some may have been stored
        if not isinstance(error, BackendError) or error.ambiguous:
            self._core.owe(*failing(error, keys))

    def _stores(self) -> bool:
        return self._core.mode() in (Mode.NORMAL, Mode.BYPASS)

    async def _epoch(self) -> int:
        """Return the newest stamp known, and learn the engine's time, if the engine was not asked yet."""
        if not (self._backend.time.known and self._core.view.known):
            await self._commands.run("open", self._backend.open)
        return self._core.view.last

    def _counter_header(self, ttl: float, epoch: int) -> bytes:
        return pack(
            Record(
                flags=0,
                fill_id=new_fill_id(),
                epoch=epoch,
                born=self._backend.time.earliest(),
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
