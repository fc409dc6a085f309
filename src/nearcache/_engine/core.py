"""What both flavours of one cache share: its settings, its near tier, its flights, its debts, and who is told of
events.
"""

import itertools
import math
import os
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

from nearcache._core.clock import Clock
from nearcache._core.events import (
    Announced,
    EngineReset,
    Event,
    Evicted,
    Failure,
    Flushable,
    Observer,
    QueueFull,
    Reason,
    SnapshotUnused,
    Startable,
)
from nearcache._core.keys import Namespace
from nearcache._core.outage import Outage
from nearcache._core.ttl import TTL
from nearcache._core.weak import weakly
from nearcache._engine.health import Watch
from nearcache._engine.modes import Blocks, Mode, Modes
from nearcache._engine.snapshot import Snapshot
from nearcache.codecs.codec import Codec, CodecName, Encoded, Record
from nearcache.codecs.envelope import number_of
from nearcache.codecs.schema import Schema
from nearcache.errors import ConfigError, InvalidKeyError, UnsupportedError
from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flight, Flights
from nearcache.near.recent import Recent
from nearcache.near.shares import Shares
from nearcache.near.slot import NEVER, Copier
from nearcache.near.snapshot import SnapshotError, file_of
from nearcache.near.stock import Stock
from nearcache.near.store import Limit, Store
from nearcache.near.view import ALL, KNOWN, MOST_OWED, View
from nearcache.options import Options

if TYPE_CHECKING:
    from nearcache._engine.memo import Memo
    from nearcache._engine.transaction import Transaction

T = TypeVar("T")

NO_NEAR = Limit(entries=0)
FAR_MEMORY = Limit(bytes=64_000_000)
"""How much memory:// holds where the near tier is turned off."""


UNSERVED: Final[tuple[Reason, ...]] = ("error", "incoherent")
"""Why a value is loaded that the engine might have: it failed."""

COMPRESS_ABOVE: Final = 1_024
"""Bytes of a payload above which "+zstd" compresses: below, little is saved."""


class Core:
    """One cache, before it is sync or async."""

    def __init__(self, options: Options, clock: Clock, in_memory: bool, in_base64: bool) -> None:
        self.options: Options = options
        self.clock: Clock = clock
        self.namespace: Namespace = Namespace(options.namespace, in_base64=in_base64)
        self.codec: Codec = _codec(options)
        self.modes: Modes = Modes(options.enabled)
        self.transactions: Blocks[Transaction] = Blocks()
        self.memos: Blocks[Memo] = Blocks()
        limit = NO_NEAR if options.near is None else Limit(options.near.entries, options.near.bytes)
        self.kept: float = max(options.stale or 0.0, options.fail_safe or 0.0)
        """How long values are kept after they are no longer fresh."""
        self.keeps: bool = options.near is not None
        """Whether there is a near tier to keep values in."""
        self.near: Store = Store(limit, clock, source=in_memory and self.keeps)
        self.records: Store | None = self._records() if in_memory else None
        """The records of memory://, which both flavours share: the near tier itself, unless it is turned off."""
        self.flights: Flights = Flights()
        self.coherence: Coherence = self._coherent(wanted=self.keeps and not in_memory)
        self.view: View = View(clock, options.staleness, fixed=in_memory or not self.codec.enveloped)
        self.view.news = weakly(self.marked)
        self.snapshot: Snapshot | None = self._new_snapshot()
        self._observers: tuple[Observer, ...] = ()
        self._flushable: tuple[Flushable, ...] = ()
        self._observing = False
        self.outage: Outage | None = None
        """What is known of an engine that does not answer; None while it does."""
        self.facts_due: float = 0.0
        self._engine_evictions: int | None = None
        self.loads: Watch = Watch()
        self.ttl_classes_used: set[str] = set()
        self.debts: dict[str, object] = {}
        self.pay_from: float = 0.0
        """When debts are paid again that could not be; on the clock of the commands."""
        self.pays_ahead: bool = True
        """Whether who listens pays debts before the next call does; not while another engine stands in."""
        self.recent: Recent = Recent(clock)
        self.shares: Shares = Shares(clock)
        self.stock: Stock = Stock(clock)
        self.check: Callable[[object], str] = self._check_first
        """Checks a key; the first time, also whether the observers can start, before anything is read or written."""
        self.check_all: Callable[[object], list[str]] = self._check_all_first

    def _coherent(self, wanted: bool) -> Coherence:
        made = Coherence(self.near, self.flights, self.clock, self.options.staleness, wanted=wanted)
        made.lagged, made.forgot = weakly(self._lagged), weakly(self._forgot)
        return made

    def _records(self) -> Store:
        return self.near if self.keeps else Store(FAR_MEMORY, self.clock, source=True)

    # Keys

    def _check_first(self, key: object) -> str:
        self.start()
        return self.check(key)

    def _check_all_first(self, keys: object) -> list[str]:
        self.start()
        return self.check_all(keys)

    def start(self) -> None:
        """Do what has to be done before anything is read, written or invalidated, once."""
        self._start_observers()
        self.read_snapshot()
        self.check, self.check_all = self.namespace.check, self.namespace.check_all

    # What one process leaves for the next

    def _new_snapshot(self) -> Snapshot | None:
        file = file_of(self.options)
        if file is None or not self.options.enabled:
            return None
        return Snapshot(file, self.near, self.view, self.codec, self.namespace.check)

    def read_snapshot(self) -> None:
        """Take in what the last process left, once; before anything is read or written."""
        self._with_snapshot(Snapshot.read, "read")

    def write_snapshot(self) -> None:
        """Leave what is near for the next process."""
        self._with_snapshot(Snapshot.write, "written")

    def _with_snapshot(self, do: Callable[[Snapshot], None], doing: Literal["read", "written"]) -> None:
        if self.snapshot is not None:
            try:
                do(self.snapshot)
            except SnapshotError as error:
                self.emit(SnapshotUnused(self.snapshot.path, doing, str(error)))

    # Modes

    def mode(self) -> Mode:
        """Return the mode of the running code; without a look at it where no block is open anywhere."""
        return self.modes.now() if self.near.until == NEVER else self.modes.default

    def using(self, mode: Mode) -> AbstractContextManager[None]:
        """Run a block in another mode; near hits are off for everybody meanwhile, so that a hit needs no check of
        the mode.
        """
        return self.modes.using(mode, self.near.suspend, self.near.resume)

    def inside(self, blocks: "Blocks[T]", block: T) -> AbstractContextManager[None]:
        """Run a block of one kind; near hits are off for everybody meanwhile, so that a hit needs no check of it."""
        return blocks.using(block, self.near.suspend, self.near.resume)

    @property
    def plain(self) -> bool:
        """Whether the running code is in no transaction and has no memo; at once where no block is open anywhere."""
        return self.near.until != NEVER or not (self.transactions.now() or self.memos.now())

    # Debts

    def owe(self, *keys: str) -> None:
        """Note that these records may be wrong in the engine and must be deleted before they are read again; see to it
        that somebody does so, even if nobody calls.

        Of too many, one invalidation of everything is made, where values have a header.
        """
        self._owe(keys)
        self.coherence.owing()

    def owe_marks(self, tags: Iterable[str], everything: bool) -> None:
        """Note likewise that the engine must be told of these invalidations."""
        self.view.owe(tags, everything)
        self.coherence.owing()

    def _owe(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.debts[key] = object()
        self.changed(*keys)
        if len(self.debts) > MOST_OWED and self.codec.enveloped:
            self.emit(QueueFull(len(self.debts)))
            self.view.owe((), True)  # first: a key is owed at any moment
            self.debts.clear()

    def owes(self, key: str, tags: Iterable[str]) -> bool:
        """Tell whether an invalidation of this key, or of one of these tags, waits for the engine."""
        owed = self.view.owed
        return key in self.debts or ALL in owed or not owed.keys().isdisjoint(tags)

    @property
    def owed(self) -> int:
        """How many keys and tags the engine has to be told of."""
        return len(self.debts) + len(self.view.owed)

    def owed_longest(self) -> object | None:
        """Return what stands for the first thing that the engine has to be told of, None if there is nothing."""
        while True:
            with suppress(RuntimeError):  # another thread has changed it just now
                return next(itertools.chain(self.view.owed.values(), self.debts.values()), None)

    def paid(self, debts: Sequence[tuple[str, object]]) -> None:
        """Note that these records were deleted; a debt made again meanwhile stays."""
        for key, mark in debts:
            self.near.changed((key,))
            if self.debts.get(key) is mark:
                del self.debts[key]
        self._note([key for key, _ in debts])

    def invalidated(self, keys: Iterable[str]) -> None:
        """Note invalidations that the engine has acknowledged: they are repeated if it forgets them."""
        self._note(keys)
        self.coherence.seek()

    def _note(self, keys: Iterable[str]) -> None:
        if self.records is None:
            self.recent.note(keys)

    def _forgot(self, engine: str) -> None:
        """Repeat what an engine may have forgotten that was restarted or replaced, before anything else is sent."""
        self.coherence.changed_all()
        keys, complete = self.recent.all()
        cleared = self.codec.enveloped and (not complete or self.options.on_reset == "clear")
        self.emit(EngineReset(engine, cleared))
        if cleared:
            self.view.owe((), True)
        else:
            if self.codec.enveloped:
                self.view.owe((KNOWN,), False)
            self._owe(keys)  # whoever has found out pays; who listens may have been told to end
        self.pay_from = 0.0  # whoever could not be told before, another one answers now

    # Marks

    def marked(self, tags: Iterable[str], everything: bool) -> None:
        """Serve nothing near that was loaded before these marks, and let nobody join a load that began before."""
        self.flights.detach_all()
        if not everything:
            self.near.marked(tags)
            return
        self.near.clear()
        if self.records is not None:
            self.records.clear()

    def check_tags(self, tags: object) -> tuple[str, ...]:
        """Return tags, each once; `InvalidKeyError` if one breaks the rules of keys, or if this is one str."""
        if tags == ():
            return ()
        if isinstance(tags, str) or not isinstance(tags, Iterable):
            raise InvalidKeyError(f"tags are a list or another iterable of str, not a {type(tags).__name__}")
        names = tuple(dict.fromkeys([self.namespace.check_tag(tag) for tag in cast(Iterable[object], tags)]))
        self.require_marks("tags", bool(names))
        return names

    def require_marks(self, feature: str, wanted: bool = True) -> None:
        """Raise `UnsupportedError` if something is wanted that needs a header in front of every value."""
        if wanted and not self.codec.enveloped:
            raise UnsupportedError(f"codec='json' cannot do {feature}: its values have no header; use 'msgpack'")

    # Changes

    def changed(self, *keys: str) -> None:
        """Serve nothing near that was read or loaded before a change of these keys by this process."""
        self.flights.detach(keys)
        self.near.changed(keys)

    # Time to live

    def jittered(self, ttl: TTL) -> float:
        """Return the seconds a value lives, shortened at random so that values stored together do not expire
        together.
        """
        return self.options.ttl_rules.jittered(self._ttl(ttl), random.random())  # noqa: S311 -- jitter is no secret

    def exact(self, ttl: TTL, what: str = "ttl") -> float:
        """Return the seconds of a TTL, without jitter."""
        return self.options.ttl_rules.seconds(self._ttl(ttl), what)

    def near_deadline(
        self, asked: float, remaining: float, shared: bool, cost: float, behind: float | None = None
    ) -> float:
        """Return until when a value may be served near, `asked` being when it was asked for or written.

        Others may invalidate it: its own key from then on, its tags since the marks were asked for. What took long to
        load (`cost`) is looked at again some time before it expires, so that one reader can refresh it early: a bit
        more than one load before, or it would nearly always have expired when the new one is there.
        """
        if cost:
            remaining -= cost + early(cost)
        fresh = asked + remaining  # not from now on: a thread may have been stopped since it judged the value
        if not shared:
            return fresh
        deadline = self.coherence.deadline(min(asked, self.view.proven), fresh)
        # What is missing in a replica's may have been announced before it was asked for.
        return deadline if behind is None else min(deadline, asked - behind + self.coherence.budget)

    def vouched(self, asked: float, shared: bool) -> float:
        """Return until when readers may come (monotonic) whom a value is for that the engine was asked for at `asked`.

        It is as old as the marks by which it was judged. Where nothing is kept near everybody asks for themselves.
        """
        if not shared:
            return math.inf
        if not self.keeps:
            return asked
        age = max(0.0, self.clock() - self.view.proven)
        return asked + max(0.0, self.options.staleness - age)

    def keep_meanwhile(self, flight: Flight, ttl: float, tags: Iterable[str], stored: bool) -> None:
        """Let those who come later have what was loaded because the engine does not answer, or cannot serve the key, as
        long as they could have a near value; unless it was not to be `stored`.
        """
        unserved = self.outage is not None or flight.missed in UNSERVED
        if stored and unserved and self.keeps and not self.owes(flight.key, tags):
            flight.kept, flight.vouched = True, flight.began + min(self.options.staleness, ttl)

    def _ttl(self, ttl: TTL) -> TTL:
        if ttl == "default":
            ttl = self.options.ttl
        if type(ttl) is str and ttl in self.options.ttl_rules.classes:
            self.ttl_classes_used.add(ttl)
        return ttl

    # Values

    def form(self, value: Any, source: Record | Encoded, schema: Schema | None) -> tuple[Any, Copier | None]:
        """Return the near form of a value: a state to keep, and what makes a reader's own value of it (None: share
        it).
        """
        return (value, None) if self.options.near_copy == "share" else self.codec.near_form(value, source, schema)

    def number(self, identity: bytes) -> int:
        """Return what tells records apart: of a fill id, or of a whole record without a header; 0 where nobody else
        changes them.
        """
        return number_of(identity) if self.records is None else 0

    # Events

    def listen(self, observers: Iterable[Observer]) -> None:
        """Set who is told of events."""
        self._observers = tuple(observers)
        self._flushable = tuple(observer for observer in self._observers if isinstance(observer, Flushable))
        # Weakly: what a dropped cache has not told yet is kept with its near tier, which must not keep the cache.
        self.near.tell = weakly(self._flush_observers)

    def emit(self, event: Event) -> None:
        """Tell the observers; one that fails is counted as a failure and the cache goes on.

        The first event starts those that have to be started, which may raise `ConfigError`.
        """
        if not self._observing:
            self._start_observers()
        for observer in self._observers:
            try:
                observer.on(event)
            except Exception as error:  # noqa: BLE001 -- somebody else's code
                self._observer_failed(event, error)

    def _start_observers(self) -> None:
        if self._observing:
            return
        failed: list[Exception] = []
        for observer in self._observers:
            if isinstance(observer, Startable):
                try:
                    observer.start()
                except ConfigError:
                    raise
                except Exception as error:  # noqa: BLE001 -- somebody else's code
                    failed.append(error)
        self._observing = True
        for each in failed:
            self._observer_failed(None, each)

    def _flush_observers(self) -> None:
        for observer in self._flushable:
            try:
                observer.flush()
            except Exception as error:  # noqa: BLE001 -- somebody else's code
                self._observer_failed(None, error)

    def _observer_failed(self, event: Event | None, error: Exception) -> None:
        if not isinstance(event, Failure):
            self.emit(Failure("observer", "", type(error).__name__))

    def _lagged(self, seconds: float) -> None:
        self.emit(Announced(seconds))

    def count_engine_evictions(self, total: int | None) -> None:
        """Report what the engine evicted since it was last asked; a total that fell means that it started anew."""
        before, self._engine_evictions = self._engine_evictions, total
        if total is not None and before is not None and total > before:
            self.emit(Evicted("engine", total - before))

    def after_fork(self) -> None:
        """Make a forked child independent of its parent: new locks, no flights, and nothing near that others may
        change.
        """
        self.flights.after_fork()
        self.view.after_fork()
        self.coherence.after_fork()
        self.recent.after_fork()
        self.shares.after_fork()
        self.stock.after_fork()
        self.loads.after_fork()
        if self.snapshot is not None:
            self.snapshot.after_fork()
        self.near.after_fork(suspended=not self.plain or self.mode() in (Mode.BYPASS, Mode.DISABLED))
        self.facts_due, self.outage = 0.0, None
        if self.records is None:
            self.near.clear()
        elif self.records is not self.near:
            self.records.after_fork()


def _codec(options: Options) -> Codec:
    name, _, compression = options.codec.partition("+")
    above = COMPRESS_ABOVE if compression else None
    return Codec(cast(CodecName, name), types=options.types, secret=options.secret, compress_above=above)


def new_fill_id() -> bytes:
    """Return eight random bytes that name one store of one value."""
    return os.urandom(8)


def early(cost: float) -> float:
    """Return how many seconds before its end a value is to be refreshed that took `cost` seconds to load; drawn anew.

    XFetch with beta 1 (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", 2015).
    """
    return cost * random.expovariate(1.0)


def new_token() -> str:
    """Return what names the lease of one write among all leases."""
    return os.urandom(16).hex()
