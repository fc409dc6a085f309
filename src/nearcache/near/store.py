"""The in-process tier: values served without a lock, bounded by entries or bytes, coherent with what its owner knows.

Two uses. In front of an engine it holds values that were read or loaded (`keep`), each served until its deadline. As
the engine of `memory://` (`source=True`) it also holds the raw records (`put`), and a served value only beside its own.

A value may be kept only if nothing changed since before it was read: take a `stamp`, read the engine, then `keep`.
Every change moves the stamp of the key, so a fill that crossed a change is refused.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nearcache._core.clock import Clock
from nearcache._core.keys import entity_of
from nearcache._core.missing import MISS, Missing
from nearcache.near.policy import Policy, learning
from nearcache.near.room import ENTRY_OVERHEAD, Limit, footprint
from nearcache.near.slot import MANY, NEVER, Change, Copier, Slot
from nearcache.near.snapshot import Left
from nearcache.near.stamps import Stamps
from nearcache.near.tagged import Tagged
from nearcache.near.tally import AFTER, Tallies, Tally

__all__ = ["ENTRY_OVERHEAD", "Change", "Limit", "Store"]


class Store:
    """A bounded map from keys to values and records, for any number of threads.

    Every method is atomic.
    The lock is re-entrant because a finalizer or a signal handler that runs inside may use the cache again.
    """

    __slots__ = (
        *("_lock", "_policy", "_slots", "_source", "_stamps", "_suspensions", "_tagged"),
        *(
            "clock",
            "evictions",
            "expirations",
            "hits",
            "left",
            "limit",
            "refusals",
            "size_bytes",
            "tell",
            "until",
            "vouched",
        ),
    )

    def __init__(
        self,
        limit: Limit,
        clock: Clock = time.monotonic,
        *,
        source: bool = False,
        policy: Policy | None = None,
    ) -> None:
        self.limit: Limit = limit
        self.tell: Callable[[], object] = bool
        """Called now and then while values are served, without a lock, so that listeners see hits that touch
        nothing else."""
        self.evictions: int = 0
        self.expirations: int = 0
        self.clock: Clock = clock
        self.refusals: int = 0
        """Values that were not served only because nobody vouched for them."""
        self.vouched: float = math.inf
        """Nothing is served from this time on, for want of proof that it is still right."""
        self.until: float = math.inf
        """What readers look at: `vouched`, or minus infinity while lookups are suspended."""
        self._source = source
        self._policy = policy or learning(limit.entries, limit.bytes)
        self._lock = threading.RLock()
        self._slots: dict[str, Slot] = {}
        self._stamps = Stamps()
        self.hits: Tallies = Tallies()
        """The hits of each entity."""
        self.left: dict[str, Left] = {}
        """What an earlier process left, of keys of which nothing became known since; never served by a lookup."""
        self._tagged = Tagged()
        self._suspensions = 0
        self.size_bytes: int = 0
        """Bytes held: keys, values, records and bookkeeping, expired entries included until they leave."""

    def lookup(self, key: str) -> object | Missing:
        """Return the served value or a fresh copy of it, or MISS. Takes no lock."""
        try:
            slot = self._slots[key]
        except KeyError:
            return MISS
        now = self.clock()
        if now >= slot.deadline or now >= self.until:
            return MISS
        tally = slot.tally
        try:
            tally.ticks = AFTER[tally.ticks]
        except IndexError:
            tally.turn()
            self.tell()
        if slot.freq < MANY:
            slot.freq += 1
        if slot.copy is None:
            return slot.value
        return slot.copy(slot.value)

    def lookup_suspended(self, key: str) -> object | Missing:
        """Do as `lookup`, also while lookups are suspended: for those who know that it is not they who are meant."""
        return MISS if (slot := self.slot(key)) is None else slot.taken()

    def slot(self, key: str) -> Slot | None:
        """Return the slot of a key whose value may be served, also while lookups are suspended."""
        slot, now = self._slots.get(key), self.clock()
        return None if slot is None or now >= slot.deadline or now >= self.vouched else slot

    def unvouched(self, key: str) -> Slot | None:
        """Return the slot of a key whose value is not served only because nobody vouches for it."""
        slot, now = self._slots.get(key), self.clock()
        return slot if slot is not None and self.vouched <= now < slot.deadline else None

    def refused(self, key: str) -> bool:
        """Tell whether there is a value that is not served only because nobody vouches for it, and count it."""
        refused = self.unvouched(key) is not None
        self.refusals += refused
        return refused

    def lookup_as(self, schema: object, key: str) -> object | Missing:
        """Do as `lookup`, but MISS what was kept for another declared type."""
        slot = self._slots.get(key)
        if slot is None or slot.schema is not schema:
            return MISS
        value = self.lookup(key)
        # In between, another type's slot may have taken the place.
        return value if self._slots.get(key) is slot else MISS

    def remember(self, memo: dict[Any, Slot], argument: object, key: str, schema: object) -> None:
        """Let a decorated function find the slot of a key under an argument; None as schema means any type."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is not None and (schema is None or slot.schema is schema):
                slot.remember(memo, argument)

    # Keeping values

    def stamp(self, key: str) -> int:
        """Return the generation of this key, of its stripe and of all, to be taken before the engine is read."""
        return self._stamps.of(key)

    def keep(
        self,
        key: str,
        value: object,
        copy: Copier | None,
        deadline: float,
        size: int,
        stamp: int,
        schema: object = None,
        tags: tuple[str, ...] = (),
        record: int = 0,
    ) -> bool:
        """Serve a value until `deadline`, unless something changed since `stamp` was taken; tell whether it is kept.

        `value` is handed out as it is, or as `copy(value)`. `size` is the bytes it takes. `record` tells the engine's
        records apart, 0 if that is not known. While a value of another record is served, nobody knows which of the two
        is the newer, and neither is served from then on. With `source=True` a value is kept only beside a live record,
        and not longer. What is larger than the limit is not kept.
        """
        with self._lock:
            self.left.pop(key, None)
            served = self._served(key) if record else 0
            if served in (0, record) and self.stamp(key) == stamp:
                return self._keep(key, value, copy, deadline, size, schema, tags, record)
            if record and served != record:
                self._pass(key)
            return False

    def wrote(
        self,
        key: str,
        value: object,
        copy: Copier | None,
        deadline: float,
        size: int,
        stamp: int,
        schema: object = None,
        tags: tuple[str, ...] = (),
        record: int = 0,
    ) -> bool:
        """Serve a value that this process wrote to the engine since it took `stamp`; tell whether it is kept.

        Fills that began before are refused. If something else changed since `stamp`, nobody knows which write was the
        last, and nothing is served; so if another record is served, for what was served before was dropped when `stamp`
        was taken. The arguments are those of `keep`; `put` may have been the write.
        """
        with self._lock:
            alone = self.stamp(key) == stamp + self._source and (not record or self._served(key) in (0, record))
            self._changed(key)
            return alone and self._keep(key, value, copy, deadline, size, schema, tags, record)

    def changed(self, keys: Iterable[str]) -> None:
        """Stop serving values that were changed in the engine, by anybody, and refuse every fill that began before."""
        with self._lock:
            for key in keys:
                self._changed(key)

    def passed(self, key: str) -> None:
        """Serve nothing for a key that may be older than what somebody has got who looked elsewhere."""
        with self._lock:
            self._pass(key)

    def marked(self, tags: Iterable[str]) -> None:
        """Stop serving the values of these tags, and refuse every fill that began before.

        O(values served of these tags).
        """
        with self._lock:
            self._stamps.change_all()
            self._tagged.lower(tags, NEVER)

    # The records of the in-process engine

    def put(self, key: str, raw: bytes, held: float) -> None:
        """Store a record until the time `held`; what was served for the key is served no more."""
        with self._lock:
            self._put(key, raw, held)

    def raw(self, key: str) -> bytes | None:
        """Return a live record, or None."""
        slot = self._slots.get(key)
        if slot is None or slot.raw is None:
            return None
        if slot.held <= self.clock():
            self._expire(slot)
            return None
        if slot.freq < MANY:
            slot.freq += 1
        return slot.raw

    def held(self, key: str) -> float | None:
        """Return the time until which the record is held, or None if there is no live one."""
        slot = self._slots.get(key)
        return None if slot is None or slot.held <= self.clock() else slot.held

    def evicted(self, key: str) -> bool:
        """Tell whether the record of a key left for want of room lately, as far as that is remembered."""
        with self._lock:
            return key not in self._slots and self._policy.left(key)

    def discard(self, key: str) -> bool:
        """Remove a record and what is served for it; tell whether there was a live one."""
        with self._lock:
            self._stamps.change(key)
            slot = self._slots.get(key)
            if slot is None:
                return False
            self._drop(slot)
            return slot.held > self.clock()

    def mutate(self, key: str, change: Change) -> None:
        """Replace a record by what `change` makes of it, atomically; if it raises or returns None nothing changes.

        `change` runs under the store's lock: it must be quick and must not wait for anything.
        """
        with self._lock:
            slot = self._slots.get(key)
            live = slot is not None and slot.held > self.clock()
            after = change(slot.raw, slot.held) if slot is not None and live else change(None, NEVER)
            if after is not None:
                self._put(key, *after)

    def keys(self, prefix: str = "") -> list[str]:
        """List the keys of live records that start with `prefix`; O(entries)."""
        now = self.clock()
        return [slot.key for slot in self.slots() if slot.held > now and slot.key.startswith(prefix)]

    # The whole store

    def slots(self) -> list[Slot]:
        """Return all slots there are."""
        with self._lock:
            return list(self._slots.values())

    def clear(self) -> None:
        """Drop everything, and refuse every fill that began before."""
        self.left = {}
        self.disown()

    def disown(self) -> None:
        """Do as `clear`, but for what an earlier process left: nobody has vouched for that anyway."""
        with self._lock:
            dropped = list(self._slots.values())
            for slot in dropped:
                slot.retire()
            self._stamps.change_all()
            self._slots.clear()
            self._tagged.clear()
            self._policy.clear()
            self.size_bytes = 0
        del dropped  # finalizers of the values run here, outside the lock

    def vouch(self, until: float) -> None:
        """Serve nothing from the time `until` on, unless it is put off before; nothing is dropped."""
        with self._lock:
            self.vouched = until
            if self._suspensions == 0:
                self.until = until

    def suspend(self) -> None:
        """Make `lookup` miss until as many `resume` calls follow; nothing is dropped."""
        with self._lock:
            self._suspensions += 1
            self.until = NEVER

    def resume(self) -> None:
        """End one `suspend`."""
        with self._lock:
            self._suspensions = max(0, self._suspensions - 1)  # a fork may have ended it already
            if self._suspensions == 0:
                self.until = self.vouched

    def after_fork(self, suspended: bool = False) -> None:
        """Make the store usable in a forked child; to be called there before anything else.

        If another thread of the parent was changing it at that moment it may be half changed, and starts empty. What
        other threads suspended is resumed, unless the forking one has `suspended` it too.
        """
        self.vouched = math.inf
        if not suspended:
            self._suspensions, self.until = 0, math.inf
        whole = self._lock.acquire(blocking=False)
        self._lock = threading.RLock()
        if not whole:
            self.clear()

    @property
    def entries(self) -> int:
        """Entries held, expired ones included until they leave."""
        return len(self._slots)

    def tallies(self) -> Mapping[str, Tally]:
        """Return the hits of each entity; from the 100th entity on they are counted as "other". Takes no lock."""
        return self.hits.all()

    # Under the lock

    def _served(self, key: str) -> int:
        """Return the number of the record that is served for a key, 0 if there is none."""
        slot = self._slots.get(key)
        return slot.record if slot is not None and slot.deadline > self.clock() else 0

    def _pass(self, key: str) -> None:
        self._stamps.pass_by(key)
        self.left.pop(key, None)
        if (slot := self._slots.get(key)) is not None:
            self._drop(slot)

    def _changed(self, key: str) -> None:
        self._stamps.change(key)
        self.left.pop(key, None)
        slot = self._slots.get(key)
        if slot is not None and slot.raw is not None:
            slot.deadline = NEVER
        elif slot is not None:
            self._drop(slot)

    def _keep(
        self,
        key: str,
        value: object,
        copy: Copier | None,
        deadline: float,
        size: int,
        schema: object,
        tags: tuple[str, ...],
        record: int,
    ) -> bool:
        """Serve a value; tell whether it is kept."""
        old = self._slots.get(key)
        slot = self._beside(key, old, size, tags)
        if self._too_large(slot) or (self._source and slot.held <= self.clock()):
            self._stamps.change(key)  # nobody will see that somebody has got it, so that nothing older may be kept
            return False
        slot.serve(value, copy, min(deadline, slot.held) if self._source else deadline, schema, record)
        self._place(slot, old)
        if tags:
            slot.tags = tags
            self._tagged.add(slot)
        return True

    def _beside(self, key: str, old: Slot | None, size: int, tags: tuple[str, ...]) -> Slot:
        """Make a slot that takes over the record of an old one."""
        raw = old.raw if old is not None else None
        slot = Slot(key, footprint(key, size + len(raw or b""), tags), self.hits.of(entity_of(key)))
        if old is not None and raw is not None:
            slot.hold(raw, old.held)
        return slot

    def _put(self, key: str, raw: bytes, held: float) -> None:
        self._stamps.change(key)
        old = self._slots.get(key)
        slot = Slot(key, footprint(key, len(raw)), self.hits.of(entity_of(key)))
        slot.hold(raw, held)
        if not self._too_large(slot):
            self._place(slot, old)
            return
        if old is not None:
            self._drop(old)
        self.evictions += 1

    def _too_large(self, slot: Slot) -> bool:
        return self.limit.entries == 0 or (self.limit.bytes is not None and slot.size > self.limit.bytes)

    def _place(self, slot: Slot, old: Slot | None) -> None:
        """Make room for a slot and put it where its key can be found."""
        now = self.clock()
        while self._full(slot, old) and (victim := self._policy.victim(now)) is not None:
            if victim is not old:
                self._count_out(victim, now)
                self._stamps.change(victim.key)  # as above
            self._forget(victim)
            old = None if victim is old else old
        self._settle(slot, old)

    def _full(self, slot: Slot, old: Slot | None) -> bool:
        entries, size = self.limit.entries, self.limit.bytes
        if entries is not None and old is None and len(self._slots) >= entries:
            return True
        return size is not None and self.size_bytes + slot.size - (old.size if old is not None else 0) > size

    def _settle(self, slot: Slot, old: Slot | None) -> None:
        if old is None:
            self._policy.insert(slot)
        else:
            self._policy.replace(old, slot)
            self.size_bytes -= old.size
            self._retire(old)
        self._slots[slot.key] = slot
        self.size_bytes += slot.size

    def _count_out(self, slot: Slot, now: float) -> None:
        if slot.expired(now):
            self.expirations += 1
        else:
            self.evictions += 1

    def _drop(self, slot: Slot) -> None:
        self._policy.remove(slot)
        self._forget(slot)

    def _retire(self, slot: Slot) -> None:
        slot.retire()
        self._tagged.discard(slot)

    def _forget(self, slot: Slot) -> None:
        self._retire(slot)
        if self._slots.pop(slot.key, None) is not None:
            self.size_bytes -= slot.size

    def _expire(self, slot: Slot) -> None:
        with self._lock:
            if self._slots.get(slot.key) is slot:
                self._drop(slot)
                self.expirations += 1
