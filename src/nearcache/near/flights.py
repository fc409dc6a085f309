"""Flights: one piece of work per key in this process, however many threads and event loops ask for it.

The first to `join` a key leads; the others follow and are woken when the leader `land`s the outcome. An invalidation
detaches the flight: it goes on for those who already wait, but nobody joins it any more. Whether its result may be
stored is for the engine to say, by the key's lease.

While the engine does not serve a key nothing can be stored, and one load would follow the other. So flights are kept
then, after they have landed, for as long as their results are for those who come.
Safe to use from any thread; no method blocks. Locks are re-entrant because a finalizer or a signal handler that runs
inside may use the cache again.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import RLock
from typing import Any, Final

from nearcache._core.events import Reason
from nearcache._core.outcome import Outcome

Waker = Callable[[], None]

MOST_KEPT: Final = 1_000
"""Flights that are kept after they have landed; of more, the newest are."""


class Flight:
    """One load in progress: who waits for it, and how it ended."""

    __slots__ = (
        *("_lock", "_wakers", "began", "cancel", "closes", "fallback", "home", "kept", "key", "made", "missed"),
        "outcome",
        *("renew", "soft"),
        "table",
        *("token", "until", "vouched"),
    )

    def __init__(self, table: "Flights", key: str, until: float, home: object) -> None:
        self.table: Flights = table
        self.key: str = key
        self.until: float = until
        self.home: object = home
        """The event loop or the thread whose turn the leader needs to go on, or None."""
        self.token: str = f"{table.process}-{os.urandom(8).hex()}"
        """The name of the lease under which it loads: whose it is can be told from it."""
        self.began: float = -math.inf
        """When its load began (monotonic); minus infinity as long as none has."""
        self.vouched: float = -math.inf
        """Those who asked until then (monotonic) may have the result, whenever the load began: it was stored, and no
        invalidation that ended before they asked is unknown here."""
        self.made: float = time.monotonic()
        self.kept: bool = False
        """Whether readers may have the result who come after it was there: the engine does not serve the key."""
        self.closes: float = math.inf
        """Until when others may join (monotonic), `until` apart."""
        self.fallback: Outcome[Any] | None = None
        """What readers get who have waited until `soft` (monotonic), or for whom the flight is overdue."""
        self.soft: float = math.inf
        self.missed: Reason | None = None
        """Why its reader found nothing; None where nobody reads, or that was told already."""
        self.renew: Callable[[], Coroutine[Any, Any, Outcome[Any]]] | None = None
        """What the leader has to do for itself after the others have the outcome: refresh a value that is kept."""
        self.outcome: Outcome[Any] | None = None
        self.cancel: Callable[[], None] | None = None
        """Stops the leader, where that is possible; called when its last waiter leaves."""
        self._lock = RLock()
        self._wakers: list[Waker] = []

    def begin(self, until: float, good_for: float | None) -> None:
        """Note that the load begins, and must end at the time `until` (monotonic).

        `good_for` is given where the engine cannot say what has changed: the seconds from now on for which readers may
        have what is loaded all the same, as they may have near values.
        """
        self.began, self.until = time.monotonic(), until
        if good_for is not None:
            self.vouched = self.began + good_for

    def open(self, now: float) -> bool:
        """Whether others may join now."""
        return now < self.until and now < self.closes and (self.outcome is None or now <= self.vouched)

    def serves(self, asked: float) -> bool:
        """Whether the result is for a reader whose call began at `asked` (monotonic)."""
        return asked <= self.began or asked <= self.vouched

    def watch(self, waker: Waker) -> bool:
        """Have `waker` called when the flight lands; False if it already has."""
        with self._lock:
            if self.outcome is None:
                self._wakers.append(waker)
                return True
        return False

    def leave(self, waker: Waker) -> None:
        """Stop waiting; the last one to leave cancels the work, unless it was meant to be left."""
        with self._lock:
            if waker in self._wakers:
                self._wakers.remove(waker)
            deserted = not self._wakers and self.outcome is None and self.soft == math.inf
        if deserted and self.cancel is not None:
            self.cancel()

    def land(self, outcome: Outcome[Any]) -> None:
        """Publish the outcome and wake everybody who waits; the first outcome stays."""
        with self._lock:
            if self.outcome is None:
                self.outcome = outcome
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()


_leading: ContextVar[tuple[Flight, ...]] = ContextVar("nearcache_leading", default=())


@contextmanager
def leading(*flights: Flight) -> Generator[None]:
    """Mark the code that runs inside as part of these flights' load."""
    token = _leading.set((*_leading.get(), *flights))
    try:
        yield
    finally:
        with suppress(ValueError):  # a load that nobody finished is closed by the garbage collector, anywhere
            _leading.reset(token)


class Flights:
    """The flights of one cache, by key."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._by_key: dict[str, Flight] = {}
        self.process: str = os.urandom(8).hex()
        """The name of this process's share in the leases."""
        self._tokens: set[str] = set()
        self._renewing: dict[str, Flight] = {}
        self._kept: deque[Flight] = deque()

    def new(self, key: str, until: float, home: object) -> Flight:
        """Return a flight that nobody knows yet, so that nobody can join it; `until` bounds how long others may."""
        return Flight(self, key, until, home)

    def join(self, mine: Flight, now: float) -> Flight:
        """Return the flight of the key: another one to follow, or `mine`, which the caller must land.

        A flight older than its bound is replaced; so is one that has landed, when its result is for nobody any more.
        """
        with self._lock:
            flight = self._by_key.get(mine.key)
            if flight is not None and flight.open(now):
                return flight
            self._by_key[mine.key] = mine
            return mine

    def replace(self, mine: Flight, _now: float) -> Flight:
        """Make `mine` the flight of its key, whoever leads another one, and return it; called like `join`."""
        with self._lock:
            self._by_key[mine.key] = mine
            return mine

    def claim(self, flight: Flight) -> str:
        """Return the token of a flight that is going to ask for a lease; it lives until the flight lands."""
        self._tokens.add(flight.token)
        return flight.token

    def orphaned(self, token: str) -> bool:
        """Whether this is the token of a flight of this process that has landed: its leader was interrupted before it
        could give the lease back.
        """
        return token.startswith(self.process) and token not in self._tokens

    def renewing(self, flight: Flight) -> bool:
        """Tell whether this is now the only flight of the process that refreshes its key; nobody joins it."""
        with self._lock:
            other = self._renewing.get(flight.key)
            if other is not None and time.monotonic() < other.until:
                return False
            self._renewing[flight.key] = flight
            return True

    def land(self, flight: Flight, outcome: Outcome[Any]) -> None:
        """End a flight: later callers start a new one, unless it is to be kept."""
        self._tokens.discard(flight.token)
        with self._lock:
            if self._renewing.get(flight.key) is flight:
                del self._renewing[flight.key]
            present, landed = self._by_key.get(flight.key) is flight, flight.outcome is not None
            if present and not landed and not self._keep(flight, outcome):  # one that had landed is there to be kept
                del self._by_key[flight.key]
        flight.land(outcome)

    def _keep(self, flight: Flight, outcome: Outcome[Any]) -> bool:
        now = time.monotonic()
        if not (flight.kept and outcome.error is None and flight.vouched > now):
            return False
        flight.home = None  # nobody has to wait for its turn
        self._kept.append(flight)
        while len(self._kept) > MOST_KEPT or self._kept[0].vouched < now:
            self._drop(self._kept.popleft())
        return True

    def _drop(self, flight: Flight) -> None:
        if self._by_key.get(flight.key) is flight:
            del self._by_key[flight.key]

    def let_go(self) -> None:
        """Let go of flights that were kept."""
        with self._lock:
            while self._kept:
                self._drop(self._kept.popleft())

    def detach(self, keys: Iterable[str]) -> None:
        """Let later readers of these keys begin flights of their own: what is loaded now may be older than a change."""
        if self._by_key:
            with self._lock:
                for key in keys:
                    self._by_key.pop(key, None)

    def outdate(self, key: str, mine: Flight | None = None) -> None:
        """Let nobody join a flight any more that is for readers, too, who came after its load began: somebody gets what
        may be newer than the outcome of any flight but `mine`.
        """
        flight = self._by_key.get(key)
        if flight is not None and flight is not mine and flight.vouched > -math.inf:
            self.detach((key,))

    def detach_all(self) -> None:
        """Do so for every key: which tags a load will bring is known only at its end."""
        with self._lock:
            self._by_key = {}
            self._kept.clear()

    def led_here(self, key: str) -> bool:
        """Whether the calling code runs inside a load of this very key."""
        return any(f.key == key and f.table is self and f.outcome is None for f in _leading.get())

    def after_fork(self) -> None:
        """Forget all flights: their leaders stayed in the parent process."""
        self._lock = RLock()
        self._by_key = {}
        self.process = os.urandom(8).hex()
        self._tokens = set()
        self._renewing = {}
        self._kept = deque()
