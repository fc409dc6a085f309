"""A source that hangs: readers have the old value, or are told in time, and the next one loads."""

from threading import Event
from time import perf_counter, sleep

from nearcache import LoaderTimeoutError
from nearcache.demo import guide
from nearcache.demo.stage import Stage, duration

FRESH = 0.05
SOFT = 0.2
HARD = 0.5
MARGIN = 0.5
"""Seconds after the deadline within which a reader is told."""

PATIENCE = 30.0


def play(stage: Stage) -> None:
    """Measure how long a reader waits for a source that never answers."""
    never = Event()
    try:
        _with_an_old_value(stage, never)
        _without(stage, never)
    finally:
        never.set()  # or its threads would be there until the end


def _with_an_old_value(stage: Stage, never: Event) -> None:
    key = "weather:1"
    guide.cache.get_or_load(key, lambda: "sunny", ttl=FRESH, fail_safe="1h")
    sleep(2 * FRESH)
    started = perf_counter()
    got = guide.cache.get_or_load(key, lambda: _hang(never), ttl="1m", fail_safe="1h", soft_timeout=SOFT)
    waited = perf_counter() - started
    stage.report("an old value, and a soft timeout of 200 ms", f"{got}, after {duration(waited)}", got == "sunny")


def _without(stage: Stage, never: Event) -> None:
    key, started = "weather:2", perf_counter()
    try:
        got = guide.cache.get_or_load(key, lambda: _hang(never), ttl="1m", hard_timeout=HARD)
    except LoaderTimeoutError as error:
        got = type(error).__name__
    waited = perf_counter() - started
    in_time = got == "LoaderTimeoutError" and waited < HARD + MARGIN
    stage.report("no old value, and a hard timeout of 500 ms", f"{got}, after {duration(waited)}", in_time)
    stuck = sum(guide.cache.health().stuck_loaders.values())
    stage.report("loads that hang, as health() says", stuck, stuck >= 1)
    anew = guide.cache.get_or_load(key, lambda: "rain", ttl="1m")
    stage.report("the next reader loads, and gets", anew, anew == "rain")


def _hang(never: Event) -> str:
    never.wait(PATIENCE)
    return "too late"
