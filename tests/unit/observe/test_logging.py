"""One warning per change of state, the rest at DEBUG."""

import logging

import pytest

from nearcache._core.events import EngineBack, EngineLost, Failure, Load, Miss, QueueFull
from nearcache.observe.logging import MOST_LOSSES, Logging
from tests.unit.near.helpers import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def listener(clock, caplog):
    caplog.set_level(logging.DEBUG, "nearcache")
    return Logging("app", clock)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_lost_engine_is_one_warning_until_it_is_back(listener, caplog):
    for event in (EngineLost("redis", "connection refused"), EngineLost("redis", "again"), EngineBack("redis")):
        listener.on(event)
    assert warnings(caplog) == [
        "app: the redis engine does not answer: connection refused",
        "app: the redis engine answers again",
    ]
    listener.on(EngineBack("redis"))
    assert len(warnings(caplog)) == 2
    listener.on(EngineLost("redis", "gone"))
    assert len(warnings(caplog)) == 3


def test_an_engine_that_comes_and_goes_is_told_of_until_that_is_no_news(listener, clock, caplog):
    def flap(times: int) -> None:
        for _ in range(times):
            clock.now += 0.1
            listener.on(EngineLost("redis", "no answer"))
            listener.on(EngineBack("redis"))

    flap(300)
    told = warnings(caplog)
    assert len(told) == 2 * MOST_LOSSES - 1
    assert told[-1].endswith("no answer; it comes and goes, which is not told of any more until it is rarer")
    listener.on(EngineLost("redis", "no answer"))
    clock.now += 60
    listener.on(EngineBack("redis"))
    assert warnings(caplog)[len(told) :] == ["app: the redis engine answers again"], "that was a long one"
    flap(1)
    assert len(warnings(caplog)) == len(told) + 3, "it is rare again"


def test_failed_loads_are_one_warning_a_minute_for_each_entity(listener, clock, caplog):
    for _ in range(3):
        listener.on(Load("users", 0.1, "ValueError"))
    listener.on(Load("orders", 0.1, "KeyError"))
    assert warnings(caplog) == ["app: a load of users failed: ValueError", "app: a load of orders failed: KeyError"]
    clock.now += 59.9
    listener.on(Load("users", 0.1, "ValueError"))
    assert len(warnings(caplog)) == 2
    clock.now += 0.1
    listener.on(Load("users", 0.1, "ValueError"))
    assert warnings(caplog)[-1] == "app: a load of users failed: ValueError (3 more failed since the last warning)"
    clock.now += 60
    listener.on(Load("users", 0.1, "ValueError"))
    assert warnings(caplog)[-1] == "app: a load of users failed: ValueError"


def test_suppressed_failures_are_still_seen_at_debug(listener, caplog):
    for _ in range(2):
        listener.on(Load("users", 0.1, "ValueError"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]


def test_the_number_of_entities_remembered_is_bounded(listener):
    for number in range(300):
        listener.on(Load(f"entity{number}", 0.1, "ValueError"))
    assert len(listener._failures) == 101


@pytest.mark.parametrize("event", [Load("users", 0.1), Miss("users", "cold"), Failure("codec", "users", "CodecError")])
def test_everything_else_is_debug(listener, caplog, event):
    listener.on(event)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


def test_nothing_is_formatted_when_nobody_listens(caplog, clock):
    caplog.set_level(logging.INFO, "nearcache")
    Logging("app", clock).on(Miss("users", "cold"))
    assert caplog.records == []


def test_the_logger_is_left_to_the_program():
    logger = logging.getLogger("nearcache")
    assert [type(handler) for handler in logger.handlers if isinstance(handler, logging.NullHandler)]
    assert logger.level == logging.NOTSET
    assert logger.propagate


def test_a_queue_that_overflows_is_a_warning(listener, caplog):
    listener.on(QueueFull(10_001))
    assert warnings(caplog) == [
        "app: 10001 invalidations waited for the engine; everything will be invalidated instead",
    ]
