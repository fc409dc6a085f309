"""What the doctor makes of what an engine says about itself."""

import pytest

from nearcache._checkup import announced
from nearcache.backends.base import Check
from nearcache.backends.redis import checkup
from nearcache.backends.several import checks_of_all

PRIMARY = {"redis_version": "7.2.4", "role": "master", "connected_slaves": "2"}
STARTED = {"server_time_usec": "1000000000000", "uptime_in_seconds": "1000"}
"""At 999000 by its own clock, it is 1000000 now."""


def test_a_primary_is_what_caches_write_to():
    assert checkup.role(PRIMARY) == Check("role", True, "Redis 7.2.4, a primary with 2 replicas")
    valkey = PRIMARY | {"valkey_version": "9.0.0", "connected_slaves": "0"}
    assert checkup.role(valkey).found == "Valkey 9.0.0, a primary with 0 replicas"
    assert "unknown version" in checkup.role({}).found


def test_a_replica_is_not():
    found = checkup.role(PRIMARY | {"role": "slave", "master_host": "h", "master_port": "7"})
    assert (found.works, found.found) == (False, "Redis 7.2.4, a replica of h:7")
    assert "point it at the primary" in found.advice


@pytest.mark.parametrize(
    ("info", "found", "advice"),
    [
        ({"maxmemory": "0", "used_memory": "2500000"}, "2.5 MB used, without a limit", "set maxmemory, and"),
        ({"maxmemory": "0"}, "an unknown size used, without a limit", "set maxmemory, and"),
        (
            {"maxmemory": "5000000", "used_memory": "2500000", "maxmemory_policy": "noeviction"},
            "2.5 MB of 5.0 MB used, maxmemory-policy noeviction",
            "it refuses writes when it is full; set a maxmemory-policy that evicts",
        ),
        (
            {"maxmemory": "5000000", "used_memory": "2500000", "maxmemory_policy": "volatile-lru"},
            "2.5 MB of 5.0 MB used, maxmemory-policy volatile-lru",
            "",
        ),
    ],
)
def test_an_engine_should_have_a_limit_and_evict(info, found, advice):
    check = checkup.memory(info)
    assert (check.works, check.found) == (True, found)
    assert advice in check.advice
    assert bool(check.advice) == bool(advice)


@pytest.mark.parametrize(
    ("aof", "snapshots", "forgets", "works", "found", "advised"),
    [
        ("1", True, False, True, "an append-only file", False),
        ("0", False, False, True, "none: a restart begins empty", False),
        ("0", True, False, True, "snapshots without an append-only file", True),
        ("0", True, True, True, "snapshots without an append-only file", False),
        ("0", None, False, None, "does not tell", False),
    ],
)
def test_snapshots_alone_bring_back_what_was_deleted(aof, snapshots, forgets, works, found, advised):
    check = checkup.persistence({"aof_enabled": aof}, snapshots, forgets)
    assert (check.works, 'on_reset="clear"' in check.advice) == (works, advised)
    assert found in check.found


@pytest.mark.parametrize(
    ("saves", "info", "expected"),
    [
        ({b"save": b"3600 1"}, {}, True),
        ({b"save": b""}, {}, False),
        ([b"save", b"3600 1"], {}, True),
        ([b"save", b""], {}, False),
        (None, {}, None),
        (None, STARTED | {"rdb_last_save_time": "999001"}, None),
        (None, STARTED | {"rdb_last_save_time": "999900"}, True),
    ],
)
def test_snapshots_are_told_by_settings_or_by_one_that_was_made(saves, info, expected):
    assert checkup.snapshots(info, saves) is expected


@pytest.mark.parametrize(
    ("engine", "found", "advised"),
    [
        (100.5, "as this machine's", False),
        (101.5, "0.500 s ahead of this machine's", False),
        (99.5, "0.500 s behind this machine's", False),
        (103.0, "2.000 s ahead of this machine's", True),
        (90.0, "10.000 s behind this machine's", True),
    ],
)
def test_a_clock_is_off_by_what_the_round_trip_does_not_explain(engine, found, advised):
    check = checkup.clock_of(engine, 100.0, 101.0)
    assert (check.works, check.found, bool(check.advice)) == (True, found, advised)


@pytest.mark.parametrize(
    ("bus", "tracking", "stream", "expected", "advised"),
    [
        ("tracking", True, True, (True, True), False),
        ("tracking", True, False, (True, None), False),
        ("tracking", False, True, (False, True), True),
        ("tracking", False, False, (False, None), False),
        ("stream", False, True, (None, True), False),
        ("stream", True, False, (True, False), False),
        ("tracking", None, True, (None, True), False),
    ],
)
def test_only_the_chosen_way_to_announce_changes_has_to_work(bus, tracking, stream, expected, advised):
    first, second = announced(Check("tracking", tracking, "why"), Check("stream", stream, ""), bus, hears=True)
    assert (first.works, second.works) == expected
    assert ('bus="stream"' in first.advice) == advised
    assert first.found == "why"


def test_a_stream_is_of_no_use_to_who_hears_nothing():
    first, _ = announced(Check("tracking", False, ""), Check("stream", True, ""), "tracking", hears=False)
    assert first.advice == ""


def test_of_several_servers_the_worst_is_told():
    fine, unwise, broken = (Check("x", True, "a"), Check("x", True, "b", "do"), Check("x", False, "c"))
    for each in ([fine, unwise, broken], [broken, unwise, fine], [unwise, broken, broken]):
        servers = {f"h{number}": [check, Check("y", True, "y")] for number, check in enumerate(each)}
        worst, other = checks_of_all(servers)
        assert (worst.works, worst.found) == (False, f"h{each.index(broken)}: c")
        assert other == Check("y", True, "h0: y")
    assert checks_of_all({"h0": [fine], "h1": [unwise]})[0].found == "h1: b"
