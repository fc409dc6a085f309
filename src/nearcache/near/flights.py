"""Flights: one piece of work per key in this process, however many threads and event loops ask for it.

The first to `join` a key leads; the others follow and are woken when the leader `land`s the outcome. An invalidation
detaches the flight: it goes on for those who already wait, but nobody joins it any more and its leader does not store.

Writes and stores of one key by this process may cross on their way to the engine, over different connections. So no
flight may store while a write is under way; and a key whose store is under way when a write begins is doubtful until
that store has ended.
Safe to use from any thread; no method blocks. Locks are re-entrant because a finalizer or a signal handler that runs
inside may use the cache again.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import RLock
from typing import Any, Final, TypeVar
from weakref import ref

from nearcache._core.outcome import Outcome

T = TypeVar("T")
Waker = Callable[[], None]
NO_KEYS: Final[AbstractSet[str]] = frozenset()


class Flight:
    """One load in progress: who waits for it, and how it ended."""

    __slots__ = ("__weakref__", "_lock", "_wakers", "cancel", "detached", "home", "key", "outcome", "table", "until")

    def __init__(self, table: "Flights", key: str, until: float, home: object) -> None:
        self.table: Flights = table
        self.key: str = key
        self.until: float = until
        self.home: object = home
        """The event loop or the thread whose turn the leader needs to go on, or None."""
        self.detached: bool = False
        self.outcome: Outcome[Any] | None = None
        self.cancel: Callable[[], None] | None = None
        """Stops the leader, where that is possible; called when its last waiter leaves."""
        self._lock = RLock()
        self._wakers: list[Waker] = []

    def watch(self, waker: Waker) -> bool:
        """Have `waker` called when the flight lands; False if it already has."""
        with self._lock:
            if self.outcome is None:
                self._wakers.append(waker)
                return True
        return False

    def leave(self, waker: Waker) -> None:
        """Stop waiting; the last one to leave cancels the work."""
        with self._lock:
            if waker in self._wakers:
                self._wakers.remove(waker)
            deserted = not self._wakers and self.outcome is None
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
def leading(flight: Flight) -> Generator[None]:
    """Mark the code that runs inside as part of this flight's load."""
    token = _leading.set((*_leading.get(), flight))
    try:
        yield
    finally:
        with suppress(ValueError):  # a load that nobody finished is closed by the garbage collector, anywhere
            _leading.reset(token)


class Change:
    """The writes of one key that are under way."""

    __slots__ = ("__weakref__", "writers")

    def __init__(self) -> None:
        self.writers: int = 0


class Flights:
    """The flights of one cache, by key, and the writes that they must not overtake."""

    def __init__(self) -> None:
        self.after_fork()

    def new(self, key: str, until: float, home: object) -> Flight:
        """Return a flight that nobody knows yet, so that nobody can join it; `until` bounds how long others may."""
        return Flight(self, key, until, home)

    def solo(self, key: str) -> Flight:
        """Return a flight that nobody can join or detach, and that therefore never stores."""
        flight = Flight(self, key, 0.0, None)
        flight.detached = True
        return flight

    def join(self, mine: Flight, now: float) -> Flight:
        """Return the flight of the key: another one to follow, or `mine`, which the caller must land.

        A flight older than its bound is replaced, and no longer stores.
        """
        with self._lock:
            flight = self._by_key.get(mine.key)
            if flight is not None and now < flight.until:
                return flight
            return self._replace(mine)

    def replace(self, mine: Flight, _now: float) -> Flight:
        """Make `mine` the flight of its key, whoever leads another one, and return it; called like `join`."""
        with self._lock:
            return self._replace(mine)

    def land(self, flight: Flight, outcome: Outcome[Any]) -> None:
        """End a flight: later callers start a new one."""
        with self._lock:
            if self._by_key.get(flight.key) is flight:
                del self._by_key[flight.key]
        flight.land(outcome)

    def changing(self, *keys: str) -> "Changing":
        """Write these keys inside: loads of them that began before the end never store."""
        return Changing(self, keys)

    def begin(self, keys: Iterable[str]) -> list[Change]:
        """Note that writes of these keys are under way."""
        with self._lock:
            return [self._change(key) for key in keys]

    def end(self, keys: Iterable[str], changes: Iterable[Change]) -> None:
        """Note that those writes have ended."""
        with self._lock:
            for key, change in zip(keys, changes, strict=True):
                self._changed(key, change)

    def may_store(self, flight: Flight) -> bool:
        """Tell whether the flight's result may be stored; if so, `crossed` and `settle` must follow."""
        key = flight.key
        with self._lock:
            free = not flight.detached and not _alive(self._changes, key) and not _alive(self._storing, key)
            if free:
                self._storing[key] = ref(flight)
            return free

    def crossed(self, flight: Flight) -> bool:
        """End the flight's store, unless a write of this process began meanwhile: nobody knows which came last."""
        with self._lock:
            if not flight.detached:
                self._storing.pop(flight.key, None)
            return flight.detached

    def settle(self, flight: Flight) -> None:
        """Note that whatever the flight stored is of no account any more."""
        with self._lock:
            if _alive(self._storing, flight.key) is flight:
                del self._storing[flight.key]

    def doubtful(self, keys: Iterable[str]) -> AbstractSet[str]:
        """Return those of the keys whose record in the engine may be older than a write of this process."""
        if not self._storing:
            return NO_KEYS
        return {key for key in keys if (flight := _alive(self._storing, key)) is not None and flight.detached}

    def led_here(self, key: str) -> bool:
        """Whether the calling code runs inside a load of this very key."""
        return any(f.key == key and f.table is self and f.outcome is None for f in _leading.get())

    def after_fork(self) -> None:
        """Forget all flights: their leaders stayed in the parent process."""
        self._lock = RLock()
        self._by_key: dict[str, Flight] = {}
        # Weak: what an interrupt dropped between two lines must not bind its key for ever. Plain references, for a
        # WeakValueDictionary takes as long as all the rest of a write together; a dead one stays until its key is
        # written again.
        self._changes: dict[str, ref[Change]] = {}
        self._storing: dict[str, ref[Flight]] = {}

    def _replace(self, mine: Flight) -> Flight:
        old = self._by_key.get(mine.key)
        if old is not None:
            old.detached = True
        self._by_key[mine.key] = mine
        return mine

    def _detach(self, key: str) -> None:
        if self._by_key or self._storing:
            for flight in (self._by_key.pop(key, None), _alive(self._storing, key)):
                if flight is not None:
                    flight.detached = True

    def _change(self, key: str) -> Change:
        self._detach(key)
        change = _alive(self._changes, key)
        if change is None:
            change = Change()
            self._changes[key] = ref(change)
        change.writers += 1
        return change

    def _changed(self, key: str, change: Change) -> None:
        self._detach(key)
        change.writers -= 1
        if change.writers == 0:
            self._changes.pop(key, None)


def _alive(references: Mapping[str, ref[T]], key: str) -> T | None:
    """Return what is referred to under a key, if it still lives."""
    reference = references.get(key)
    return None if reference is None else reference()


class Changing:
    """The block in which some keys are written. A class, not a generator: every write enters one."""

    __slots__ = ("_changes", "_flights", "_keys")

    def __init__(self, flights: Flights, keys: tuple[str, ...]) -> None:
        self._flights = flights
        self._keys = keys
        self._changes: list[Change] = []

    def __enter__(self) -> None:
        self._changes = self._flights.begin(self._keys)

    def __exit__(self, *_: object) -> None:
        self._flights.end(self._keys, self._changes)
