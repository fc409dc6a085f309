"""Durations, classes of data and jitter."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._core.ttl import LONGEST_TTL, TtlRules, parse_duration
from nearcache.errors import ConfigError

RULES = TtlRules({"default": 3_600.0, "session": 86_400.0, "config": 300.0})

DURATIONS: list[tuple[Any, float]] = [
    (1, 1.0),
    (0.5, 0.5),
    (timedelta(minutes=2), 120.0),
    ("90s", 90.0),
    ("5m", 300.0),
    ("1h", 3_600.0),
    ("1d", 86_400.0),
    ("250ms", 0.25),
    ("1h30m", 5_400.0),
    ("1d2h3m4s5ms", 93_784.005),
    ("1.5h", 5_400.0),
]

NOT_DURATIONS: list[Any] = [
    None,
    True,
    False,
    0,
    0.0,
    -1,
    math.inf,
    -math.inf,
    math.nan,
    10**400,
    10**5_000,
    timedelta(0),
    timedelta(seconds=-1),
    "",
    " ",
    "90",
    "s",
    "0s",
    "0d0h",
    "-5s",
    "+5s",
    "5 s",
    "5S",
    "5s ",
    "5s\n",
    "1m1h",
    "1s1s",
    "5w",
    "inf",
    "nan",
    "1e3s",
    "٣s",
    "9" * 400 + "d",
    b"5s",
    [5],
    5j,
]


@pytest.mark.parametrize(("value", "seconds"), DURATIONS, ids=repr)
def test_a_duration_is_read_in_seconds(value, seconds):
    assert parse_duration(value) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize("value", NOT_DURATIONS, ids=lambda value: type(value).__name__)
def test_what_is_no_positive_finite_duration_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"^staleness is "):
        parse_duration(value, "staleness")


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_units_add_up(days, hours, minutes, seconds, millis):
    text = f"{days}d{hours}h{minutes}m{seconds}s{millis}ms"
    whole = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis)
    if whole:
        assert parse_duration(text) == pytest.approx(whole.total_seconds(), rel=1e-12)
    else:
        with pytest.raises(ConfigError):
            parse_duration(text)


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[0-9.dhms]{1,8}", fullmatch=True) | st.floats() | st.integers() | st.timedeltas())
def test_every_input_is_a_positive_finite_duration_or_a_config_error(value):
    try:
        seconds = parse_duration(value)
    except ConfigError:
        return
    assert 0.0 < seconds < math.inf


def test_a_class_of_data_stands_for_its_seconds():
    assert [RULES.seconds(name) for name in ("default", "session", "config")] == [3_600.0, 86_400.0, 300.0]
    assert RULES.class_of("session") == "session"
    assert RULES.class_of("90s") is None
    assert RULES.class_of(90) is None


def test_an_unknown_class_is_refused_naming_the_known_ones_and_the_variable():
    with pytest.raises(ConfigError, match=r"ttl is 'sesion'.*config, default, session; set CACHE_TTL_SESION to define"):
        RULES.seconds("sesion")


@pytest.mark.parametrize("ttl", ["", "-5s", "no class", "Session", ".5s", "Ⅳ"])
def test_a_text_that_can_be_no_class_gets_no_advice_to_define_one(ttl):
    with pytest.raises(ConfigError) as error:
        RULES.seconds(ttl)
    assert "CACHE_TTL_" not in str(error.value)


def test_365_days_are_allowed_and_nothing_longer():
    assert RULES.seconds("365d") == LONGEST_TTL == 365 * 24 * 3_600
    with pytest.raises(ConfigError, match=r"ttl is '365d1ms'; at most 31536000 seconds .*CACHE_TTL_MAX"):
        RULES.seconds("365d1ms")


@pytest.mark.parametrize("ttl", [None, True, 0, -1, math.inf, math.nan, [], timedelta(0)], ids=repr)
def test_there_is_no_way_to_cache_for_ever_or_not_at_all(ttl):
    with pytest.raises(ConfigError):
        RULES.seconds(ttl)
    with pytest.raises(ConfigError):
        RULES.jittered(ttl, 0.0)


@settings(deadline=None)
@given(st.floats(1e-3, LONGEST_TTL), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_jitter_only_shortens_and_by_at_most_its_share(ttl, draw, jitter):
    jittered = TtlRules({}, jitter=jitter).jittered(ttl, draw)
    assert ttl * (1 - jitter) * (1 - 1e-12) <= jittered <= ttl
    assert jittered > 0


def test_the_draw_decides_how_much_is_taken_off():
    assert RULES.jittered(100, 0.0) == 100.0
    assert RULES.jittered(100, 0.5) == pytest.approx(95.0)
    assert RULES.jittered("default", 0.5) == pytest.approx(3_420.0)


def test_a_session_is_never_jittered():
    assert RULES.jittered("session", 0.999) == 86_400.0
