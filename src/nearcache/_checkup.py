"""An examination of a cache's engine for `nearcache doctor`: every port is tried, on a key of its own.

It works beside the cache, over a backend with its options whose view of marks is fixed: so it neither needs nor makes
the record of marks, and other caches notice nothing.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Final

from nearcache._core.quotas import MICROS
from nearcache._core.urls import scheme_of
from nearcache._io.blocking import drive
from nearcache.backends.base import Ask, Backend, Check, Fill, Item, Replicas
from nearcache.backends.limits import LimitAsk
from nearcache.backends.locks import LockAsk
from nearcache.backends.registry import BackendSpec, build
from nearcache.backends.sessions import SessionChange, SessionRecord
from nearcache.cache import Cache
from nearcache.codecs.codec import COUNTER
from nearcache.codecs.envelope import NO_SCHEMA, Record, pack, pack_ages
from nearcache.errors import BackendError, BackendTimeoutError, CacheError, UnsupportedError
from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flights
from nearcache.near.store import Limit, Store
from nearcache.options import Options

__all__ = ["Check", "examine"]

LIFE: Final = 10.0
"""Seconds that what is tried out lives, should it not be removed."""

PATIENCE: Final = 2.0
"""Seconds to wait for a message, or for the engine to announce changes, besides the time to connect."""

WARM_UP: Final = 10.0
"""Seconds in which an engine that has just started may let the first client in, beyond the time of one call."""

A_MOMENT: Final = 0.1
"""Seconds to wait for a message before it is asked for anew: at first nobody may listen yet."""

TRIPS: Final = 20
"""Round trips of which the quickest counts."""

FILL_ID: Final = b"doctor's"

DAY: Final = 86_400 * MICROS
"""The period of the limit that is tried out: no window of it ends meanwhile, and it is forgotten at once."""


def examine(cache: Cache) -> list[Check]:
    """Return what was found out about the engine of a cache, the connection first; leaves nothing in it."""
    core = cache._parts.core  # noqa: SLF001 -- the doctor looks inside
    return list(_Examination(core.options, core.codec.enveloped).checks())


class _Examination:
    """One backend and one key to try things on."""

    def __init__(self, options: Options, enveloped: bool) -> None:
        self._options = options
        self._enveloped = enveloped
        near, clock = Store(Limit(entries=1), time.monotonic), time.monotonic
        self._coherence = Coherence(near, Flights(), clock, options.staleness, wanted=options.near is not None)
        where = BackendSpec(options.url, options.namespace, pool_min=1, timeout=options.timeout, enveloped=enveloped)
        self._backend: Backend = build(replace(where, coherence=self._coherence), "sync")
        self._key = f"nearcache-doctor:{uuid.uuid4().hex}"
        self._patience = PATIENCE + options.timeout

    def checks(self) -> Iterator[Check]:
        """Find out one thing after the other; nothing more where the engine cannot be reached."""
        with closing(self):
            yield (reached := self._tried("connection", self._connect))
            if reached.works:
                yield from self._ports()

    def close(self) -> None:
        """Remove what is left, and hang up."""
        with suppress(CacheError):
            drive(self._backend.delete([self._key]))
        drive(self._backend.close())

    def _ports(self) -> Iterator[Check]:
        yield self._tried("values", self._values)
        yield self._tried("counters", self._counters)
        yield self._tried("scan", self._scan)
        yield self._tried("leases", self._leases)
        if (replicas := self._backend.replicas) is not None:
            yield self._tried("replicas", partial(self._replicas, replicas))
        if self._backend.shared:
            yield from self._heard() if self._backend.hears else self._asked()
            if scheme_of(self._options.url) in WITH_FAIL_OVER:
                yield Check("fail-over", None, "a replica may not know what its primary acknowledged last")
            if scheme_of(self._options.url) == "hazelcast":
                yield Check("halves", None, "members that lose sight of one another go on by themselves")
        else:
            yield self._tried("tags", self._tags)
            yield self._tried("locks", self._locks)
            yield self._tried("sessions", self._sessions)
            yield self._tried("limits", self._limits)
            yield Check("sharing", None, "all of it is in this process, and ends with it")

    def _heard(self) -> Iterator[Check]:
        """Examine what comes from the engine, and the engine itself; to listen comes first, for it takes a moment."""
        admin, tracking = self._backend.admin, self._tracking()
        yield (messages := self._tried("messages", self._messages))
        told = {} if admin is None else {c.name: c for c in drive(admin.examine(forgets=self._forgets))}
        yield from announced(tracking, told.pop("stream", NO_STREAM), self._options.bus, hears=bool(messages.works))
        yield from told.values()

    def _asked(self) -> Iterator[Check]:
        yield self._tried("tags", self._marks_known)
        yield self._tried("sessions", self._sessions)
        yield self._tried("limits", self._limits)
        yield Check("asking", None, ASKED)
        if (admin := self._backend.admin) is not None:
            yield from drive(admin.examine(forgets=self._forgets))

    @property
    def _forgets(self) -> bool:
        return self._options.on_reset == "clear"

    def _tried(self, name: str, work: Callable[[], str]) -> Check:
        try:
            return Check(name, True, work())
        except UnsupportedError as error:
            return Check(name, None, str(error))
        except CacheError as error:
            return Check(name, False, str(error))

    # One thing each: do what caches do, and say what that was

    def _connect(self) -> str:
        self._reach()
        return f"a round trip takes {min(self._seconds() for _ in range(TRIPS)) * 1000:.2f} ms"

    def _reach(self) -> None:
        """Get a first answer."""
        end = time.monotonic() + WARM_UP
        while True:
            try:
                return drive(self._backend.ping())
            except BackendTimeoutError:
                if time.monotonic() >= end:
                    raise

    def _seconds(self) -> float:
        began = time.perf_counter()
        drive(self._backend.ping())
        return time.perf_counter() - began

    def _values(self) -> str:
        backend, item, key = self._backend, self._item(), self._key
        drive(backend.set(item))
        drive(backend.set_many([item]))
        _expect(drive(backend.get(key)), item.raw, STORED)
        _expect(drive(backend.get_many([key])), [item.raw], STORED)
        ages = (FILL_ID, pack_ages(LIFE, LIFE)) if self._enveloped else (b"", b"")
        _expect(drive(backend.touch(key, LIFE, *ages)), True, "what was stored cannot be touched")
        drive(backend.remaining([key]))
        _expect(drive(backend.delete([key])), 1, "what was stored cannot be deleted")
        _expect(drive(backend.add(item, b"")), True, "what was deleted cannot be added")
        return "stored, read, kept longer, deleted and added"

    def _leases(self) -> str:
        leases, key, item = self._backend.leases, self._key, self._item()
        drive(self._backend.delete([key]))
        _expect([self._asks("one"), self._asks("two")], [True, False], "not one of two was given the right to load")
        drive(leases.steal(Ask(key, "two", b"", LIFE)))
        _expect(drive(leases.fill([Fill(item, "one", b"")])), [False], "a right to load that was lost counts")
        _expect(drive(leases.commit(item, "two")), True, "a right to load that was taken does not count")
        drive(self._backend.delete([key]))
        return "one at a time may load and store"

    def _asks(self, token: str) -> bool:
        (grant,) = drive(self._backend.leases.acquire([Ask(self._key, token, b"", LIFE)]))
        return grant.leads

    def _replicas(self, replicas: Replicas) -> str:
        """Store, and read it at a replica as soon as that is known to have it."""
        drive(self._backend.set(self._item()))
        found = _within(self._patience + self._options.staleness, partial(self._copied, replicas))
        drive(self._backend.delete([self._key]))
        _expect(found, True, NO_REPLICA)
        return "what is stored can be read at a replica"

    def _copied(self, replicas: Replicas) -> bool:
        if replicas.due():
            drive(replicas.look())
        copied = drive(replicas.read([self._key]))
        return copied is not None and copied.records.get(self._key) is not None

    def _messages(self) -> str:
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            if self._woken():
                return "who waits for a load is told when it ends"
        _, deaf, why = self._coherence.why.partition("no connection announces changes: ")
        raise BackendError(f"who waits for a load is not told when it ends: {why if deaf else MAY_IT_PUBLISH}")

    def _woken(self) -> bool:
        with closing(self._backend.leases.expect(self._key)) as mail:
            self._asks("one")
            self._asks("two")
            drive(self._backend.leases.release(self._key, "one", "retry"))
            return _within(A_MOMENT, lambda: mail.heard is not None)

    def _tracking(self) -> Check:
        coherence = self._coherence
        if not coherence.wanted:
            return Check("tracking", None, "nothing is kept near (near=None)")
        coherence.seek()
        _within(self._patience, lambda: coherence.told()[0])
        announced, _, why = coherence.told()
        return Check("tracking", announced, why or "the engine announces every change, by whomever")

    def _tags(self) -> str:
        drive(self._backend.marks.mark([self._key], everything=False))
        return INVALIDATED

    def _marks_known(self) -> str:
        drive(self._backend.marks.ask([self._key]))
        return "the record of what was invalidated can be read"

    def _locks(self) -> str:
        """Have one hold a lock that another asks for, and give it back."""
        locks, ask = self._backend.locks, partial(LockAsk, self._key, life=LIFE, fair=False, waits=False)
        if locks is None:
            raise UnsupportedError("this engine has none")
        held = [drive(locks.acquire(ask(owner=owner))).token > 0 for owner in ("one", "two")]
        drive(locks.release(self._key, "one", False))
        _expect(held, [True, False], "not one of two was given a lock")
        return "one at a time may hold a lock"

    def _limits(self) -> str:
        """Consume all units of a limit, and forget that."""
        if (limits := self._backend.limits) is None:
            raise UnsupportedError("this engine has none")
        ask = LimitAsk("nearcache-doctor", uuid.uuid4().hex, limits.kinds[0], ((1, DAY),), 1)
        admitted = [drive(limits.hit(ask)).admitted for _ in range(2)]
        drive(limits.reset(ask))
        _expect(admitted, [True, False], "not one of two was let through")
        return "what is done can be counted"

    def _sessions(self) -> str:
        """Begin a session, change it and end it."""
        name, change = uuid.uuid4().hex, SessionChange({b"b": b"2"}, [b"a"], 100)
        if (sessions := self._backend.sessions) is None:
            raise UnsupportedError("this engine has none")
        drive(sessions.create(name, SessionRecord(LIFE, LIFE, {b"a": b"1"})))
        _expect(drive(sessions.save(name, change)), True, "a session that was begun cannot be changed")
        _expect(drive(sessions.destroy([name])), 1, "a session that was begun cannot be ended")
        return "visitors may have sessions"

    def _counters(self) -> str:
        counters, fresh = self._backend.counters, self._record(b"") if self._enveloped else b""
        if counters is None:
            raise UnsupportedError("this engine has none")
        drive(self._backend.delete([self._key]))
        for total in (1, 2):
            _expect(drive(counters.incr(self._key, 1, fresh, LIFE, b"")), total, "the sum is wrong")
        return "counted exactly"

    def _scan(self) -> str:
        if self._backend.scan is None:
            raise UnsupportedError("this engine lists no keys")
        drive(self._backend.scan.page("", self._key))
        return "keys can be listed"

    def _item(self) -> Item:
        return Item(self._key, self._record(b"1"), LIFE)

    def _record(self, payload: bytes) -> bytes:
        if not self._enveloped:
            return payload
        return pack(Record(0, FILL_ID, 0, 1.0, LIFE, LIFE, 0.0, COUNTER, NO_SCHEMA, payload=payload))


NO_REPLICA: Final = (
    "no replica is known to be up to date: does one follow, can it be reached where the primary says, and may the user "
    "ask both for INFO?"
)
ASKED: Final = "nobody is told when a load ends: who waits for one in another process asks"
MAY_IT_PUBLISH: Final = "may the user publish? docs/rights.md has the rule"
WITH_FAIL_OVER: Final = frozenset({"redis+sentinel", "redis+cluster"})
"""Schemes of engines where a replica takes the place of a primary that dies."""

STORED: Final = "what was stored is not what is there"
INVALIDATED: Final = "tags, and everything, can be invalidated"
NO_STREAM: Final = Check("stream", None, "this engine has none")


def announced(tracking: Check, stream: Check, bus: str, *, hears: bool) -> tuple[Check, Check]:
    """Return the two ways to announce changes; the one that is not chosen need not work, but may be the better.

    `hears` is whether this side can be sent messages at all.
    """
    if bus == "stream":
        return _unused(tracking), stream
    if hears and tracking.works is False and stream.works:
        tracking = replace(tracking, advice='Cache(bus="stream") can be told by the other caches instead: docs/bus.md')
    return tracking, _unused(stream)


def _unused(check: Check) -> Check:
    return replace(check, works=None if check.works is False else check.works)


def _expect(found: object, expected: object, problem: str) -> None:
    if found != expected:
        raise BackendError(problem)


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    """Wait until something is true; tell whether it became so."""
    end = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.002)
    return now
