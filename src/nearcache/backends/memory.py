"""memory://: the records live in this process, in the store that the near tier serves from; nothing is shared with
others.
"""

from collections.abc import Sequence
from typing import ClassVar

from nearcache._core.clock import EngineTime
from nearcache.backends.base import Backend, Counters, Item, Scan
from nearcache.backends.registry import BackendSpec, Flavour
from nearcache.codecs.codec import COUNTER
from nearcache.codecs.envelope import AGES, FILL_ID, SIZE, unpack
from nearcache.errors import CodecError, ConfigError
from nearcache.near.store import Limit, Store

SIGNED_LIMIT = 1 << 63
DEFAULT_BYTES = 64_000_000


def build(spec: BackendSpec, flavour: Flavour) -> Backend:
    """Build the backend over the cache's own store, or over one of its own where it is given none."""
    if spec.url.partition("://")[2] not in ("", "/"):
        raise ConfigError("url (CACHE_URL): memory:// is this process's memory; nothing may follow it")
    store = spec.store
    if store is None:
        store = Store(Limit(bytes=DEFAULT_BYTES), spec.time.clock, source=True)
    return MemoryBackend(store, spec.time, spec.enveloped)


class MemoryBackend(Backend):
    """A backend over a store in this process; every method is atomic and none suspends."""

    name: ClassVar[str] = "memory"
    shared: ClassVar[bool] = False

    def __init__(self, store: Store, time: EngineTime, enveloped: bool = True) -> None:
        self._store = store
        self._clock = time.clock
        self._enveloped = enveloped
        self.time: EngineTime = time
        self.time.observe(0.0, 0.0, 0.0)
        self.counters: Counters | None = self
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

        self._store.mutate(item.key, change)
        return added

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove records; return how many there were."""
        return sum([self._store.discard(key) for key in keys])

    async def touch(self, key: str, ttl: float, fill_id: bytes, ages: bytes) -> bool:
        """Give a record a new life, and new ages in its header."""
        held = self._clock() + ttl
        touched = False

        def change(raw: bytes | None, _: float) -> tuple[bytes, float] | None:
            nonlocal touched
            touched = raw is not None and (fill_id == b"" or raw[FILL_ID] == fill_id)
            return (_patched(raw, AGES, ages), held) if touched and raw is not None else None

        self._store.mutate(key, change)
        return touched

    async def incr(self, key: str, by: int, fresh: bytes, ttl: float, dead: bytes) -> int:
        """Add to an integer record; see `Counters`."""
        until = self._clock() + ttl
        total = 0

        def change(raw: bytes | None, held: float) -> tuple[bytes, float]:
            nonlocal total
            alive = raw is not None and (dead == b"" or raw[FILL_ID] != dead)
            header = _patched(raw[:SIZE], FILL_ID, fresh[FILL_ID]) if alive and raw is not None else fresh
            total = _checked(by + (self._integer(key, raw) if alive and raw is not None else 0), key)
            return (header if self._enveloped else b"") + b"%d" % total, held if alive else until

        self._store.mutate(key, change)
        return total

    async def page(self, cursor: str, prefix: str) -> tuple[str, list[str]]:
        """Return all keys at once."""
        return "", self._store.keys(prefix)

    async def ping(self) -> None:
        """Memory is always there."""

    async def close(self) -> None:
        """The records stay: they belong to the cache, which may be used again."""

    def _integer(self, key: str, raw: bytes) -> int:
        if self._enveloped:
            record = unpack(raw)
            raw = record.payload if record.codec == COUNTER and not record.flags else b""
        try:
            return int(raw)
        except ValueError:
            raise CodecError(f"{key!r} holds no integer to add to") from None


def _patched(raw: bytes, where: slice, patch: bytes) -> bytes:
    return raw[: where.start] + patch + raw[where.stop :] if patch else raw


def _checked(total: int, key: str) -> int:
    if not -SIGNED_LIMIT <= total < SIGNED_LIMIT:
        raise CodecError(f"the sum for {key!r} does not fit into 64 bits")
    return total
