"""memory://: the records live in this process, in the store that the near tier serves from; nothing is shared with
others.
"""

import hashlib
import math
import threading
import weakref
from collections.abc import Sequence
from typing import ClassVar, Final

from nearcache._core.clock import Clock, EngineTime
from nearcache._core.fork import on_fork
from nearcache.backends.base import (
    BACK_OFF,
    Ask,
    Backend,
    Counters,
    Fill,
    Grant,
    Item,
    Leases,
    Marks,
    Scan,
    identity_of,
)
from nearcache.backends.counting import counted, patched
from nearcache.backends.limits import Limits
from nearcache.backends.locks import Locks
from nearcache.backends.memory_limits import MemoryLimits
from nearcache.backends.memory_locks import MemoryLocks
from nearcache.backends.memory_sessions import MemorySessions
from nearcache.backends.registry import BackendSpec, Flavour
from nearcache.backends.sessions import Sessions
from nearcache.codecs.envelope import AGES, FILL_ID
from nearcache.errors import ConfigError
from nearcache.near.inbox import Inbox, Mail
from nearcache.near.store import Limit, Store
from nearcache.near.view import View

DEFAULT_BYTES = 64_000_000
MOST_MARKS: Final = 100_000
"""Tags whose marks are kept; values that are older than a forgotten mark count as invalid."""


def build(spec: BackendSpec, flavour: Flavour) -> Backend:
    """Build the backend over the cache's own store, or over one of its own where it is given none."""
    if spec.url.partition("://")[2] not in ("", "/"):
        raise ConfigError("url (CACHE_URL): memory:// is this process's memory; nothing may follow it")
    store = spec.store
    if store is None:
        store = Store(Limit(bytes=DEFAULT_BYTES), spec.time.clock, source=True)
    ledger = spec.shared(Ledger, lambda: Ledger(store, spec.time.clock, spec.view, spec.enveloped))
    locks = spec.shared(MemoryLocks, lambda: MemoryLocks(spec.time.clock))
    sessions = spec.shared(MemorySessions, lambda: MemorySessions(spec.time.clock))
    limits = spec.shared(MemoryLimits, lambda: MemoryLimits(spec.time))
    return MemoryBackend(store, ledger, locks, sessions, limits, spec)


class Ledger:
    """The leases and marks of one store, which both flavours share: the same decisions as an engine's scripts."""

    life: float = math.inf
    """A loader that dies takes this engine with it, so its lease need not end earlier than the load may last."""

    def __init__(self, store: Store, clock: Clock, view: View, enveloped: bool) -> None:
        self._store = store
        self._clock = clock
        self._view = view
        self._enveloped = enveloped
        self._inbox = Inbox()
        self._leases: dict[str, tuple[str, float]] = {}
        self._marks: dict[str, int] = {}
        self._stamp = self._purge = 0
        self.lock: threading.RLock = threading.RLock()
        """Held while a record and its lease change together."""
        _ledgers.add(self)

    # Leases

    def identity(self, raw: bytes | None) -> bytes:
        """Return the fill id of a record, or the digest of one without a header."""
        if raw is None:
            return b""
        return identity_of(raw[FILL_ID] if self._enveloped else hashlib.sha1(raw, usedforsecurity=False).digest())

    async def acquire(self, asks: Sequence[Ask]) -> list[Grant]:
        """Ask for leases."""
        return [self._acquire(ask) for ask in asks]

    def _acquire(self, ask: Ask) -> Grant:
        with self.lock:
            raw = self._store.raw(ask.key)
            if raw is not None and self.identity(raw) != ask.seen:
                return Grant(raw=raw)
            holder, left = self._lease(ask.key)
            if holder not in ("", ask.token):
                return Grant(left=left, holder=holder)
            self._leases[ask.key] = (ask.token, self._clock() + ask.life)
            return Grant(leads=True)

    async def steal(self, ask: Ask) -> bytes:
        """Take the lease from whoever has it."""
        with self.lock:
            self._leases[ask.key] = (ask.token, self._clock() + ask.life)
            return self.identity(self._store.raw(ask.key))

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        """Store what the leases still allow."""
        return [self._fill(fill) for fill in fills]

    def _fill(self, fill: Fill) -> bool:
        key = fill.item.key
        with self.lock:
            mine = self._lease(key)[0] == fill.token
            if mine:
                self.revoke(key)
            raw = self._store.raw(key)
            stored = mine and (raw is None or self.identity(raw) == fill.seen)
            if stored:
                self._store.put(key, fill.item.raw, self._clock() + fill.item.ttl)
        self._inbox.deliver(key, fill.token, "filled" if stored else "retry")
        return stored

    async def commit(self, item: Item, token: str) -> bool:
        """Store under a lease; without it remove the record and any lease."""
        with self.lock:
            mine = self._lease(item.key)[0] == token
            self.revoke(item.key)
            if mine:
                self._store.put(item.key, item.raw, self._clock() + item.ttl)
            else:
                self._store.discard(item.key)
        self._inbox.deliver(item.key, token, "filled" if mine else "retry")
        return mine

    async def release(self, key: str, token: str, outcome: str, back_off: float = 0.0) -> None:
        """End a lease without storing."""
        with self.lock:
            if self._lease(key)[0] == token:
                self.revoke(key)
                if back_off:
                    self._leases[key] = (BACK_OFF, self._clock() + back_off)
        self._inbox.deliver(key, token, outcome)

    def hold(self, key: str, token: str, until: float) -> None:
        """There is nothing to renew: a lease was asked for as long as the load may last."""

    def let_go(self, token: str) -> None:
        """There is nothing to renew."""

    def expect(self, key: str) -> Mail:
        """Begin to listen for the end of a key's lease."""
        return self._inbox.expect(key)

    def revoke(self, key: str) -> None:
        """End the lease of a key, whoever has it; under the lock."""
        self._leases.pop(key, None)

    def _lease(self, key: str) -> tuple[str, float]:
        """Return who has the lease, and the seconds it lives; under the lock."""
        token, until = self._leases.get(key, ("", 0.0))
        left = until - self._clock()
        if token and left <= 0:
            self.revoke(key)
            return "", 0.0
        return token, left

    # Marks

    async def mark(self, tags: Sequence[str], everything: bool) -> None:
        """Mark tags, or everything, with the next stamp."""
        with self.lock:
            self._stamp += 1
            if everything:
                self._marks.clear()
            for tag in tags:
                self._marks.pop(tag, None)  # so that the oldest mark comes first
                self._marks[tag] = self._stamp
            while len(self._marks) > MOST_MARKS:
                oldest = next(iter(self._marks))
                self._purge = self._marks.pop(oldest)
            marks = dict.fromkeys(tags, self._stamp)
            self._view.learn(0.0, marks, self._stamp if everything else 0)

    async def restore(self) -> None:
        """Nothing is forgotten as long as the process lives."""

    async def ask(self, tags: Sequence[str]) -> None:
        """Let the view learn when these tags were marked."""
        with self.lock:
            marks = {tag: self._marks.get(tag, 0) for tag in tags}
            self._view.answer(marks, self._purge, self._view.known_from)

    def after_fork(self) -> None:
        """Make a forked child's copy its own: those who held leases stayed in the parent."""
        self.lock = threading.RLock()
        self._leases = {}
        self._inbox.after_fork()


class MemoryBackend(Backend):
    """A backend over a store in this process; every method is atomic and none suspends."""

    name: ClassVar[str] = "memory"
    shared: ClassVar[bool] = False

    def __init__(
        self, store: Store, ledger: Ledger, locks: Locks, sessions: Sessions, limits: Limits, spec: BackendSpec
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = spec.time.clock
        self.time: EngineTime = spec.time
        self.time.observe(0.0, 0.0, 0.0)
        self.view: View = spec.view
        self.leases: Leases = ledger
        self.marks: Marks = ledger
        self.counters: Counters | None = self
        self.locks: Locks | None = locks
        self.sessions: Sessions | None = sessions
        self.limits: Limits | None = limits
        self.scan: Scan | None = self

    async def open(self) -> None:
        """There is nothing to connect to."""

    async def get(self, key: str) -> bytes | None:
        """Return the record, or None."""
        return self._store.raw(key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the records in the order of `keys`."""
        return [self._store.raw(key) for key in keys]

    async def remaining(self, keys: Sequence[str]) -> list[float | None]:
        """Return how many seconds each record will live."""
        now = self._clock()
        return [None if (held := self._store.held(key)) is None else held - now for key in keys]

    async def set(self, item: Item) -> None:
        """Store a record."""
        with self._ledger.lock:
            self._ledger.revoke(item.key)
            self._store.put(item.key, item.raw, self._clock() + item.ttl)

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store records."""
        for item in items:
            await self.set(item)

    async def add(self, item: Item, dead: bytes) -> bool:
        """Store a record only if there is none, or only the dead one."""
        held = self._clock() + item.ttl
        added = False

        def change(raw: bytes | None, _: float) -> tuple[bytes, float] | None:
            nonlocal added
            added = raw is None or (dead != b"" and raw[FILL_ID] == dead)
            return (item.raw, held) if added else None

        with self._ledger.lock:
            self._store.mutate(item.key, change)
            if added:
                self._ledger.revoke(item.key)
        return added

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove records; return how many there were."""
        with self._ledger.lock:
            for key in keys:
                self._ledger.revoke(key)
            return sum([self._store.discard(key) for key in keys])

    async def touch(self, key: str, ttl: float, fill_id: bytes, ages: bytes) -> bool:
        """Give a record a new life, and new ages in its header."""
        held = self._clock() + ttl
        touched = False

        def change(raw: bytes | None, _: float) -> tuple[bytes, float] | None:
            nonlocal touched
            touched = raw is not None and (fill_id == b"" or raw[FILL_ID] == fill_id)
            return (patched(raw, AGES, ages), held) if touched and raw is not None else None

        self._store.mutate(key, change)
        return touched

    async def incr(self, key: str, by: int, fresh: bytes, ttl: float, dead: bytes) -> int:
        """Add to an integer record; see `Counters`."""
        until = self._clock() + ttl
        total = 0

        def change(raw: bytes | None, held: float) -> tuple[bytes, float]:
            nonlocal total
            alive = raw is not None and (dead == b"" or raw[FILL_ID] != dead)
            total, record = counted(key, raw if alive else None, by, fresh)
            return record, held if alive else until

        with self._ledger.lock:
            self._ledger.revoke(key)
            self._store.mutate(key, change)
        return total

    async def page(self, cursor: str, prefix: str) -> tuple[str, list[str]]:
        """Return all keys at once."""
        return "", self._store.keys(prefix)

    async def ping(self) -> None:
        """Memory is always there."""

    async def close(self) -> None:
        """The records stay: they belong to the cache, which may be used again."""


_ledgers: "weakref.WeakSet[Ledger]" = weakref.WeakSet()


def _after_fork() -> None:
    for ledger in list(_ledgers):
        ledger.after_fork()


on_fork(in_child=_after_fork)
