"""Verbs, tags, expiry and clear in any order, by two caches over one engine, against a model of a few lines."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from nearcache import Cache
from nearcache._core.missing import MISS
from nearcache.near.view import View
from nearcache.testing import FakeClock
from tests.promises.helpers import broken

MOMENT = 1e-6
"""Seconds that pass with each step, so that no knowledge is older than the staleness."""

KEYS = st.sampled_from(["a:1", "a:2", "b:1"])
TAGS = st.lists(st.sampled_from(["red", "green", "blue"]), max_size=2, unique=True)
TTLS = st.sampled_from([10, 20, 30])
WHO = st.integers(0, 1)
_namespaces = itertools.count()


@dataclass
class Row:
    """What the model holds for a key."""

    value: Any
    ends: float
    tags: list[str]


class Model:
    """The whole cache, for one who sees everything at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rows: dict[str, Row] = {}

    def find(self, key: str) -> Any:
        """Return the value, or MISS."""
        row = self.rows.get(key)
        return row.value if row is not None and row.ends > self.now else MISS

    def store(self, key: str, value: Any, ttl: float, tags: list[str]) -> None:
        """Store a value."""
        self.rows[key] = Row(value, self.now + ttl, tags)

    def drop(self, *tags: str) -> None:
        """Forget what has one of these tags."""
        self.rows = {key: row for key, row in self.rows.items() if not set(tags) & set(row.tags)}


class Histories(RuleBasedStateMachine):
    """What two caches may do; `memory://` belongs to one, so that both are the same there."""

    url = ""
    near: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.model = Model()
        self.numbers = itertools.count(1)

    @initialize()
    def begin(self) -> None:
        namespace = f"m{next(_namespaces)}-{id(self)}"
        options: dict[str, Any] = {
            "namespace": namespace,
            "clock": self.clock,
            "jitter": 0,
            "staleness": 1e-9,
            "near": self.near,
            "observers": (),
            "pool_min": 1,
            "timeout": "1h",
        }
        first = Cache(self.url, **options)
        self.caches = [first, first] if self.url == "memory://" else [first, Cache(self.url, **options)]
        for cache in self.caches:
            cache.open()  # an engine's own clock stands still here: both have to look at it at the same time

    def teardown(self) -> None:
        for cache in getattr(self, "caches", ()):
            cache.close()

    def by(self, who: int) -> Cache:
        self.advance(MOMENT)
        return self.caches[who]

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds

    @rule(seconds=st.sampled_from([3.3, 7.7]))
    def time_passes(self, seconds: float) -> None:
        self.advance(seconds)

    @rule(who=WHO, key=KEYS, ttl=TTLS, tags=TAGS)
    def put(self, who: int, key: str, ttl: int, tags: list[str]) -> None:
        value = next(self.numbers)
        self.by(who).set(key, value, ttl, tags)
        self.model.store(key, value, ttl, tags)

    @rule(who=WHO, keys=st.sets(KEYS, min_size=1), ttl=TTLS, tags=TAGS)
    def put_many(self, who: int, keys: set[str], ttl: int, tags: list[str]) -> None:
        values = {key: next(self.numbers) for key in sorted(keys)}
        self.by(who).set_many(values, ttl, tags)
        for key, value in values.items():
            self.model.store(key, value, ttl, tags)

    @rule(who=WHO, key=KEYS, ttl=TTLS)
    def add(self, who: int, key: str, ttl: int) -> None:
        value, free = next(self.numbers), self.model.find(key) is MISS
        assert self.by(who).add(key, value, ttl) == free
        if free:
            self.model.store(key, value, ttl, [])

    @rule(who=WHO, key=KEYS, ttl=TTLS)
    def incr(self, who: int, key: str, ttl: int) -> None:
        before = self.model.find(key)
        assert self.by(who).incr(key, 5, ttl) == (5 if before is MISS else before + 5)
        if before is MISS:
            self.model.store(key, 5, ttl, [])
        else:
            self.model.rows[key].value = before + 5

    @rule(who=WHO, key=KEYS, ttl=TTLS)
    def touch(self, who: int, key: str, ttl: int) -> None:
        there = self.model.find(key) is not MISS
        assert self.by(who).touch(key, ttl) == there
        if there:
            self.model.rows[key].ends = self.model.now + ttl

    @rule(who=WHO, key=KEYS)
    def delete(self, who: int, key: str) -> None:
        self.by(who).delete(key)
        self.model.rows.pop(key, None)

    @rule(who=WHO, tags=TAGS)
    def invalidate(self, who: int, tags: list[str]) -> None:
        self.by(who).invalidate_tags(*tags)
        self.model.drop(*tags)

    @rule(who=WHO)
    def clear(self, who: int) -> None:
        self.by(who).clear()
        self.model.rows.clear()

    @rule(who=WHO, key=KEYS)
    def get(self, who: int, key: str) -> None:
        cache = self.by(who)
        assert cache.get(key, MISS) == self.model.find(key)
        assert cache.exists(key) == (self.model.find(key) is not MISS)

    @rule(who=WHO)
    def get_many(self, who: int) -> None:
        keys = ["a:1", "a:2", "b:1"]
        there = {key: value for key in keys if (value := self.model.find(key)) is not MISS}
        assert self.by(who).get_many(keys) == there

    @rule(who=WHO, key=KEYS, ttl=TTLS, tags=TAGS)
    def load(self, who: int, key: str, ttl: int, tags: list[str]) -> None:
        value, known = next(self.numbers), self.model.find(key)
        assert self.by(who).get_or_load(key, lambda: value, ttl, tags) == (value if known is MISS else known)
        if known is MISS:
            self.model.store(key, value, ttl, tags)

    @rule(who=WHO, keys=st.sets(KEYS, min_size=1), ttl=TTLS, tags=TAGS)
    def load_many(self, who: int, keys: set[str], ttl: int, tags: list[str]) -> None:
        values = {key: next(self.numbers) for key in sorted(keys)}
        known = {key: value for key in keys if (value := self.model.find(key)) is not MISS}
        got = self.by(who).get_or_load_many(
            sorted(keys), lambda wanted: {key: values[key] for key in wanted}, ttl, tags
        )
        assert got == {**values, **known}
        for key in keys - known.keys():
            self.model.store(key, values[key], ttl, tags)

    @rule(who=WHO, key=KEYS, ttl=TTLS, tags=TAGS)
    def write_through(self, who: int, key: str, ttl: int, tags: list[str]) -> None:
        value = next(self.numbers)
        self.by(who).write_through(key, value, lambda _: None, ttl, tags)
        self.model.store(key, value, ttl, tags)


def check(url: str, near: str | None, examples: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    """Run many histories."""
    run_state_machine_as_test(
        type("Machine", (Histories,), {"url": url, "near": near}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("near", [None, "1MB"])
def test_histories_agree_with_a_model(url: str, near: str | None) -> None:
    check(url, near, 15)


@pytest.mark.slow
@pytest.mark.parametrize("near", [None, "1MB"])
def test_many_histories_agree_with_a_model(url: str, near: str | None) -> None:
    check(url, near, 200)


def test_a_reader_that_does_not_judge_by_marks_is_noticed(url: str) -> None:
    with broken(View, "holds", lambda *_: True), pytest.raises(AssertionError):
        check(url, None, 100, (Phase.generate,))
