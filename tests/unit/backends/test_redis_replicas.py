"""What is made of what primaries and replicas say of themselves."""

from typing import Any

import pytest

from nearcache._io.blocking import drive
from nearcache.backends.redis.replicas import MOST_MET, Arrivals, Lag, RedisReplicas
from nearcache.testing import FakeClock

BUDGET = 1.0
REPLICA = "ip=10.0.0.{},port=6379,state={},offset=99,lag=0"
PLACES = ("10.0.0.1:6379", "10.0.0.2:6379")


def primary(offset: int, **others: str) -> dict[str, str]:
    told = {"role": "master", "master_replid": "a" * 40, "master_repl_offset": str(offset), "slave_read_only": "1"}
    return {**told, "slave0": REPLICA.format(1, "online"), "slave1": REPLICA.format(2, "online"), **others}


def replica(offset: int, **others: str) -> dict[str, str]:
    told = {"role": "slave", "master_link_status": "up", "master_replid": "a" * 40, "slave_repl_offset": str(offset)}
    return {**told, **others}


@pytest.fixture(name="clock")
def _clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(name="lag")
def _lag(clock: FakeClock) -> Lag:
    lag = Lag(clock, BUDGET)
    lag.learn(primary(100), clock())
    return lag


def test_a_replica_that_has_what_the_primary_had_is_as_young_as_the_question(lag: Lag, clock: FakeClock):
    asked = clock()
    clock.advance(0.1)
    lag.hear(PLACES[0], replica(100))
    assert lag.proven(PLACES[0]) == asked
    assert not lag.is_young(lag.proven(PLACES[1]))


@pytest.mark.parametrize(
    "told",
    [
        {"slave_repl_offset": "99"},
        {"master_link_status": "down"},
        {"master_replid": "b" * 40},
        {"role": "master"},
    ],
)
def test_one_that_may_lack_something_is_not(lag: Lag, told: Any):
    lag.hear(PLACES[0], replica(100, **told))
    assert not lag.is_young(lag.proven(PLACES[0]))


def test_one_that_is_behind_has_what_there_was_at_an_earlier_question(lag: Lag, clock: FakeClock):
    first = clock()
    clock.advance(0.6)
    lag.learn(primary(200), clock())
    lag.hear(PLACES[0], replica(150))
    assert lag.proven(PLACES[0]) == first < lag.latest()
    clock.advance(0.3)
    assert lag.is_young(first)
    clock.advance(0.2)
    assert not lag.is_young(first)
    assert lag.is_young(lag.latest())


def test_the_primary_is_asked_twice_a_budget_by_one(clock: FakeClock):
    lag = Lag(clock, BUDGET)
    assert [lag.due(), lag.due()] == [True, False]
    clock.advance(0.51)
    assert [lag.due(), lag.due()] == [True, False]


def test_only_replicas_that_follow_are_asked_and_spared_ones_later(lag: Lag, clock: FakeClock):
    lag.learn(primary(100, slave1=REPLICA.format(2, "wait_bgsave")), clock())
    assert lag.places == PLACES[:1]
    lag.learn(primary(100, slave0="ip=::1,port=7,state=online,offset=1,lag=1"), clock())
    assert set(lag.places) == {"[::1]:7", PLACES[1]}
    first = lag.place()
    assert first is not None
    lag.spare(first)
    second = lag.place()
    assert {first, second} == set(lag.places)
    assert second is not None
    lag.spare(second)
    assert lag.place() is None
    clock.advance(0.51)
    assert lag.place() == first


def test_nothing_is_read_from_another_replica_that_the_last_one_may_have_told_better(lag: Lag, clock: FakeClock):
    clock.advance(0.1)
    lag.learn(primary(100), clock())
    first = lag.place()
    clock.advance(0.1)
    lag.learn(primary(100), clock())
    for place in PLACES:
        lag.hear(place, replica(100))
    assert first is not None
    assert lag.unmet(["users:1"], lag.proven(first))
    lag.spare(first)
    second = lag.place()
    assert second is not None
    assert not lag.unmet(["users:1"], lag.proven(second))
    clock.advance(0.1)
    lag.learn(primary(100), clock())
    lag.hear(second, replica(100))
    assert lag.unmet(["users:1"], lag.proven(second))


def test_one_that_is_no_primary_tells_nothing(lag: Lag, clock: FakeClock):
    before = lag.latest()
    clock.advance(0.1)
    lag.learn({**primary(500), "role": "slave"}, clock())
    assert lag.latest() == before


def test_a_key_counts_as_changed_until_the_primary_was_asked_after_that(lag: Lag, clock: FakeClock):
    clock.advance(0.1)
    lag.meet(["users:1"])
    assert lag.unmet(["users:1", "users:2"], lag.latest()) == ["users:2"]
    clock.advance(0.5)
    lag.learn(primary(200), clock())
    assert lag.unmet(["users:1"], lag.latest())


def test_of_too_many_changes_everything_counts_as_changed(lag: Lag, clock: FakeClock):
    clock.advance(0.1)
    lag.meet(f"users:{number}" for number in range(MOST_MET + 1))
    assert not lag.unmet(["teams:1"], lag.latest())
    clock.advance(0.1)
    lag.learn(primary(200), clock())
    assert lag.unmet(["teams:1"], lag.latest())


def test_of_another_engine_nothing_is_known(lag: Lag):
    lag.hear(PLACES[0], replica(100))
    lag.meet(["users:1"])
    lag.renew()
    assert lag.place() is None
    assert not lag.is_young(lag.proven(PLACES[0]))
    assert lag.due()
    assert not lag.unmet(["users:1"], lag.latest())


def test_answers_of_the_primary_may_come_in_another_order(clock: FakeClock):
    lag, first = Lag(clock, BUDGET), clock()
    clock.advance(0.1)
    lag.meet(["users:1"])
    clock.advance(0.5)
    second = clock()
    lag.learn(primary(200), second)
    lag.learn(primary(100), first)
    assert lag.latest() == second
    lag.hear(PLACES[0], replica(100))
    assert lag.proven(PLACES[0]) == first
    assert not lag.unmet(["users:1"], first)


def test_one_that_is_given_another_history_has_nothing_any_more(lag: Lag):
    lag.hear(PLACES[0], replica(100))
    assert lag.is_young(lag.proven(PLACES[0]))
    lag.hear(PLACES[0], replica(100, master_link_status="down"))
    assert lag.is_young(lag.proven(PLACES[0]))
    lag.hear(PLACES[0], replica(100, master_replid="b" * 40))
    assert not lag.is_young(lag.proven(PLACES[0]))


def test_a_new_connection_may_lead_to_one_with_older_data(lag: Lag, clock: FakeClock):
    clock.advance(0.1)
    place = lag.place()
    assert place is not None
    clock.advance(0.1)
    lag.learn(primary(100), clock())
    lag.hear(place, replica(100))
    assert lag.unmet(["users:1"], lag.proven(place))
    clock.advance(0.1)
    assert not Arrivals(lag, place).met("a" * 40)
    assert not lag.is_young(lag.proven(place))
    lag.hear(place, replica(100))
    assert lag.place() == place
    assert not lag.unmet(["users:1"], lag.proven(place)), "it may have told more before"


def test_who_was_spared_is_asked_after_the_others(lag: Lag, clock: FakeClock):
    first = lag.place()
    assert first is not None
    lag.spare(first)
    second = lag.place()
    clock.advance(0.51)
    assert lag.place() == second != first


def test_a_forked_child_looks_for_itself(lag: Lag):
    lag.meet(["users:1"])
    lag.after_fork()
    assert lag.places == ()
    assert lag.due()
    assert not lag.unmet(["users:1"], lag.latest())


class _Engine:
    """A primary and a replica that answer this, and a clock that runs on as soon as the replica was asked."""

    def __init__(self, answer: object = b"") -> None:
        self.answer = answer
        self.time = 1_000.0
        self.step = 0.0
        self.lag = Lag(self.clock, BUDGET)

    def clock(self) -> float:
        self.time += self.step
        return self.time

    def named(self, key: str) -> str:
        return key

    async def run(self, *_: object) -> list[object]:
        return [self.answer]

    def execute(self, *commands: Any) -> list[object]:
        self.step = 0.6
        return [[b"old"] for _ in commands]

    def replicas(self) -> RedisReplicas:
        engine: Any = self
        return RedisReplicas(engine, self.lag, lambda _: engine)


def test_what_is_too_old_when_the_thread_goes_on_is_not_returned():
    engine = _Engine()
    lag, place = engine.lag, PLACES[0]
    lag.learn(primary(100, slave1=REPLICA.format(2, "wait_bgsave")), engine.clock())
    assert lag.place() == place
    engine.time += 0.1
    lag.learn(primary(100, slave1=REPLICA.format(2, "wait_bgsave")), engine.clock())
    lag.hear(place, replica(100))
    copied = drive(engine.replicas().read(["users:1"]))
    assert copied is None


@pytest.mark.parametrize("answer", [7, b"role:master", b"role:master\r\nmaster_replid:a\r\nmaster_repl_offset:far"])
def test_an_engine_that_tells_nothing_of_replicas_is_not_blamed(answer: object):
    engine = _Engine(answer)
    drive(engine.replicas().look())
    assert engine.lag.place() is None
