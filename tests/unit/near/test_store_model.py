"""The near store does what a simple model of it does, whatever the order of calls."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nearcache._core.missing import MISS
from nearcache.near.store import ENTRY_OVERHEAD, Limit, Store
from tests.unit.near.helpers import Clock

KEYS = st.sampled_from([f"users:{number}" for number in range(8)])
LIVES = st.sampled_from([1.0, 2.0, 5.0])
SIZES = st.integers(0, ENTRY_OVERHEAD)
LIMIT = Limit(entries=5, bytes=6 * ENTRY_OVERHEAD)


class SourceModel(RuleBasedStateMachine):
    """The model holds everything; the store may have evicted, but never has anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = Store(LIMIT, self.clock, source=True)
        self.records: dict[str, tuple[bytes, float]] = {}
        self.served: dict[str, tuple[object, float]] = {}
        self.stamps: dict[str, int] = {}

    def live(self, key: str) -> tuple[bytes | None, float]:
        raw, held = self.records.get(key, (None, 0.0))
        return (raw, held) if held > self.clock.now else (None, float("-inf"))

    def changed(self, key: str) -> None:
        self.served.pop(key, None)
        self.stamps.pop(key, None)

    @rule(key=KEYS, size=SIZES, life=LIVES)
    def put(self, key: str, size: int, life: float) -> None:
        self.records[key] = (b"x" * size, self.clock.now + life)
        self.changed(key)
        self.store.put(key, *self.records[key])
        assert self.store.raw(key) == b"x" * size

    @rule(key=KEYS)
    def take_a_stamp(self, key: str) -> None:
        self.stamps[key] = self.store.stamp(key)

    @rule(key=KEYS, size=SIZES, life=LIVES)
    def keep(self, key: str, size: int, life: float) -> None:
        stamp, value, deadline = self.stamps.get(key, -1), object(), self.clock.now + life
        if self.store.keep(key, value, None, deadline, size, stamp):
            assert stamp >= 0
            raw, held = self.live(key)
            assert raw is not None
            self.served[key] = (value, min(deadline, held))

    @rule(key=KEYS)
    def discard(self, key: str) -> None:
        there = self.store.held(key) is not None
        assert self.store.discard(key) is there
        self.records.pop(key, None)
        self.changed(key)

    @rule(key=KEYS)
    def mutate(self, key: str) -> None:
        def change(raw: bytes | None, held: float) -> tuple[bytes, float] | None:
            assert raw is None or (raw, held) == self.live(key)
            return None if raw is None else (raw[1:], held + 1)

        raw = self.store.raw(key)
        self.store.mutate(key, change)
        if raw is not None:
            self.records[key] = (raw[1:], self.records[key][1] + 1)
            self.changed(key)

    @rule(key=KEYS)
    def change(self, key: str) -> None:
        self.changed(key)
        self.store.changed((key,))

    @rule()
    def clear(self) -> None:
        self.store.clear()
        for part in (self.records, self.served, self.stamps):
            part.clear()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        value, deadline = self.served.get(key, (MISS, 0.0))
        assert self.store.lookup(key) in (MISS, value if deadline > self.clock.now else MISS)
        raw, held = self.live(key)
        assert self.store.held(key) in (None, held)
        assert self.store.raw(key) in (None, raw)
        listed = self.store.keys()
        assert (key in listed) is (self.store.held(key) is not None)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.store.entries <= (LIMIT.entries or 0)
        assert 0 <= self.store.size_bytes <= (LIMIT.bytes or 0)
        assert self.store.size_bytes == sum(slot.size for slot in self.store._slots.values())


SourceModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSourceModel = SourceModel.TestCase
