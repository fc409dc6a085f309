"""Engines that fail on demand."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import ClassVar, ParamSpec, TypeVar

from nearcache._core.clock import EngineTime
from nearcache.backends.base import Admin, Ask, Backend, Check, Counters, Facts, Fill, Grant, Item, Leases, Marks, Scan
from nearcache.backends.limits import LimitAsk, LimitGrant, Limits
from nearcache.backends.locks import LockAsk, LockGrant, Locks
from nearcache.backends.sessions import SessionChange, SessionRecord, Sessions
from nearcache.cache import AsyncCache, Cache
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError
from nearcache.near.view import View

P = ParamSpec("P")
T = TypeVar("T")


class Faults:
    """What goes wrong with an engine: by operation, in the order in which it was asked for."""

    def __init__(self) -> None:
        self._planned: dict[str, list[tuple[BackendError, bool]]] = {}
        self._down: BackendError | None = None
        self.noticed: Callable[[], object] = bool
        """Called when operations work again."""

    def down(self) -> None:
        """Let every operation raise `BackendUnavailableError`, until `up`."""
        self._down = BackendUnavailableError("the engine is down (planned)").undone()

    def up(self) -> None:
        """Let operations work again; inside `faults` the next call to the engine finds out, without a pause."""
        self._down = None
        self.noticed()

    def fail(self, operation: str, times: int = 1, *, error: BackendError | None = None, done: bool = False) -> None:
        """Let the next calls of an operation ("get", "set", "delete", ...) raise; with `done`, after doing their work.

        The default error is a `BackendTimeoutError`: nobody knows whether the engine did it.
        """
        planned = error or BackendTimeoutError(f"no answer to {operation} (planned)")
        self._planned.setdefault(operation, []).extend([(planned, done)] * times)

    async def around(self, operation: str, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the operation, unless it has to fail."""
        if self._down is not None:
            raise self._down
        planned = self._planned.get(operation)
        error, done = planned.pop(0) if planned else (None, True)
        result = await call(*args, **kwargs) if done else None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # without an error it was done


class FaultyBackend(Backend):
    """A backend around another one whose operations fail as its `Faults` say; every port is passed on."""

    name: ClassVar[str] = "faulty"

    def __init__(self, inner: Backend, faults: Faults) -> None:
        self._inner = inner
        self._do = faults.around
        self.time: EngineTime = inner.time
        self.view: View = inner.view
        self.leases: Leases = _FaultyLeases(inner.leases, faults)
        self.marks: Marks = _FaultyMarks(inner.marks, faults)
        self.counters: Counters | None = _FaultyCounters(inner.counters, faults) if inner.counters else None
        self.locks: Locks | None = _FaultyLocks(inner.locks, faults) if inner.locks else None
        self.sessions: Sessions | None = _FaultySessions(inner.sessions, faults) if inner.sessions else None
        self.limits: Limits | None = _FaultyLimits(inner.limits, faults) if inner.limits else None
        self.scan: Scan | None = _FaultyScan(inner.scan, faults) if inner.scan else None
        self.admin: Admin | None = _FaultyAdmin(inner.admin, faults) if inner.admin else None

    @property
    def shared(self) -> bool:  # type: ignore[override]  # the inner one decides
        """Whether other processes can change what is stored here."""
        return self._inner.shared

    @property
    def spreads(self) -> bool:
        """Whether it is several nodes, each of which may fail alone."""
        return self._inner.spreads

    def lacks(self) -> bool:
        """Tell whether a part of it does not answer."""
        return self._inner.lacks()

    async def open(self) -> None:
        """Connect ahead of the first use."""
        await self._do("open", self._inner.open)

    async def get(self, key: str) -> bytes | None:
        """Return the record, or None."""
        return await self._do("get", self._inner.get, key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the records in the order of `keys`."""
        return await self._do("get_many", self._inner.get_many, keys)

    async def remaining(self, keys: Sequence[str]) -> list[float | None]:
        """Return how many seconds each record will live."""
        return await self._do("remaining", self._inner.remaining, keys)

    async def set(self, item: Item) -> None:
        """Store a record."""
        await self._do("set", self._inner.set, item)

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store records."""
        await self._do("set_many", self._inner.set_many, items)

    async def add(self, item: Item, dead: bytes) -> bool:
        """Store a record only if there is none, or only the dead one."""
        return await self._do("add", self._inner.add, item, dead)

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove records; return how many there were."""
        return await self._do("delete", self._inner.delete, keys)

    async def touch(self, key: str, ttl: float, fill_id: bytes, ages: bytes) -> bool:
        """Give a record a new life."""
        return await self._do("touch", self._inner.touch, key, ttl, fill_id, ages)

    async def ping(self) -> None:
        """Ask whether the engine is there."""
        await self._do("ping", self._inner.ping)

    async def close(self) -> None:
        """Give up every connection; this never fails."""
        await self._inner.close()


class _FaultyLeases:
    def __init__(self, inner: Leases, faults: Faults) -> None:
        self._inner, self._do = inner, faults.around
        self.life: float = inner.life
        self.identity = inner.identity
        self.hold, self.let_go, self.expect = inner.hold, inner.let_go, inner.expect

    async def acquire(self, asks: Sequence[Ask]) -> list[Grant]:
        return await self._do("acquire", self._inner.acquire, asks)

    async def steal(self, ask: Ask) -> bytes:
        return await self._do("steal", self._inner.steal, ask)

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        return await self._do("fill", self._inner.fill, fills)

    async def commit(self, item: Item, token: str) -> bool:
        return await self._do("commit", self._inner.commit, item, token)

    async def release(self, key: str, token: str, outcome: str, back_off: float = 0.0) -> None:
        await self._do("release", self._inner.release, key, token, outcome, back_off)


class _FaultyLocks:
    def __init__(self, inner: Locks, faults: Faults) -> None:
        self._inner, self._do = inner, faults.around
        self.replicated: bool = inner.replicated
        self.keep, self.let_go, self.expect = inner.keep, inner.let_go, inner.expect

    async def acquire(self, ask: LockAsk) -> LockGrant:
        return await self._do("lock", self._inner.acquire, ask)

    async def release(self, name: str, owner: str, fair: bool) -> bool:
        return await self._do("unlock", self._inner.release, name, owner, fair)


class _FaultySessions:
    def __init__(self, inner: Sessions, faults: Faults) -> None:
        self._inner, self._do = inner, faults.around

    async def create(self, name: str, record: SessionRecord) -> None:
        await self._do("session_create", self._inner.create, name, record)

    async def load(self, names: Sequence[str], *, used: bool) -> list[SessionRecord | None]:
        return await self._do("session_load", self._inner.load, names, used=used)

    async def save(self, name: str, change: SessionChange) -> bool:
        return await self._do("session_save", self._inner.save, name, change)

    async def move(self, name: str, change: SessionChange, to: str) -> SessionRecord | None:
        return await self._do("session_move", self._inner.move, name, change, to)

    async def leave(self, name: str, to: str) -> bool:
        return await self._do("session_leave", self._inner.leave, name, to)

    async def destroy(self, names: Sequence[str]) -> int:
        return await self._do("session_destroy", self._inner.destroy, names)

    async def absent(self, names: Sequence[str]) -> list[str]:
        return await self._do("session_absent", self._inner.absent, names)

    async def enlist(self, user: str, name: str, left: float, before: str = "") -> None:
        await self._do("session_enlist", self._inner.enlist, user, name, left, before)

    async def names_of(self, user: str) -> list[str]:
        return await self._do("session_list", self._inner.names_of, user)

    async def strike(self, user: str, names: Sequence[str]) -> None:
        await self._do("session_strike", self._inner.strike, user, names)


class _FaultyLimits:
    def __init__(self, inner: Limits, faults: Faults) -> None:
        self._inner, self._do = inner, faults.around
        self.kinds, self.longest = inner.kinds, inner.longest

    async def hit(self, ask: LimitAsk) -> LimitGrant:
        return await self._do("limit_hit", self._inner.hit, ask)

    async def peek(self, ask: LimitAsk) -> LimitGrant:
        return await self._do("limit_peek", self._inner.peek, ask)

    async def refund(self, ask: LimitAsk, receipt: str) -> None:
        await self._do("limit_refund", self._inner.refund, ask, receipt)

    async def reset(self, ask: LimitAsk) -> None:
        await self._do("limit_reset", self._inner.reset, ask)

    async def beat(self, worker: str, life: float) -> int:
        return await self._do("limit_beat", self._inner.beat, worker, life)


class _FaultyMarks:
    def __init__(self, inner: Marks, faults: Faults) -> None:
        self._inner, self._do = inner, faults.around

    async def mark(self, tags: Sequence[str], everything: bool) -> None:
        await self._do("mark", self._inner.mark, tags, everything)

    async def ask(self, tags: Sequence[str]) -> None:
        await self._do("marks", self._inner.ask, tags)

    async def restore(self) -> None:
        await self._do("restore", self._inner.restore)


class _FaultyCounters:
    def __init__(self, inner: Counters, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    async def incr(self, key: str, by: int, fresh: bytes, ttl: float, dead: bytes) -> int:
        return await self._faults.around("incr", self._inner.incr, key, by, fresh, ttl, dead)


class _FaultyScan:
    def __init__(self, inner: Scan, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    async def page(self, cursor: str, prefix: str) -> tuple[str, list[str]]:
        return await self._faults.around("scan", self._inner.page, cursor, prefix)


class _FaultyAdmin:
    def __init__(self, inner: Admin, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    async def facts(self) -> Facts:
        return await self._faults.around("facts", self._inner.facts)

    async def examine(self, *, forgets: bool) -> list[Check]:
        return await self._faults.around("examine", self._inner.examine, forgets=forgets)


@contextmanager
def faults(cache: Cache | AsyncCache) -> Generator[Faults]:
    """Let a cache's engine fail on demand inside the block, in the flavour of `cache`.

    with faults(cache) as engine:
        engine.down()
        assert cache.get("users:1") is None
    """
    engine, planned = cache._engine, Faults()  # noqa: SLF001 -- the other half of the same library
    planned.noticed = engine.ask_again
    with engine.replaced(FaultyBackend(engine.backend, planned)):
        yield planned
