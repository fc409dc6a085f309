"""Rows about values in a Memcached server."""

from bench.row import US, Contender, Row, Target
from bench.rows_shared import OURS
from bench.work import MANY, TASKS, THREADS

PYMEMCACHE = "pymemcache + json"
AIOMCACHE = "aiomcache + json"


def _ours(build: str) -> Contender:
    return Contender(US, build, "nearcache", OURS)


def _pair(case: str) -> tuple[Contender, ...]:
    """Return nearcache and pymemcache's client for several threads, which is what a `Cache` can be used by."""
    note = "PooledClient" if case != "set" else "PooledClient, which waits for the answer (noreply=False)"
    peer = Contender(PYMEMCACHE, f"memcached:pymemcache_{case}", "memcached", ("pymemcache",), note=note)
    return _ours(f"remote:nearcache_{case}"), peer


MEMCACHED = (
    Row(
        "memcached-get",
        "memcached",
        "hit on Memcached, a dict of 5 fields, TCP",
        "get",
        _pair("get"),
        "cpu",
        rounds=100,
        calls=300,
        targets=(Target(PYMEMCACHE, 1.0),),
        url="memcached",
        command="get",
    ),
    Row(
        "memcached-threads",
        "memcached",
        f"hits on Memcached by {THREADS} threads, TCP",
        "threads",
        _pair("get"),
        "cpu",
        rounds=50,
        calls=1_600,
        targets=(Target(PYMEMCACHE, 1.0),),
        url="memcached",
        command="get",
        main=False,
    ),
    Row(
        "memcached-many",
        "memcached",
        f"`get_many` of {MANY} on Memcached, TCP",
        "many",
        _pair("many"),
        "cpu",
        rounds=100,
        calls=30,
        targets=(Target(PYMEMCACHE, 1.0),),
        url="memcached",
        command="get",
        main=False,
    ),
    Row(
        "memcached-set",
        "memcached",
        "set on Memcached, a dict of 5 fields, TCP",
        "set",
        _pair("set"),
        "cpu",
        rounds=100,
        calls=300,
        targets=(Target(PYMEMCACHE, 1.0),),
        url="memcached",
        command="set",
        main=False,
    ),
    Row(
        "memcached-tasks",
        "memcached",
        f"hits on Memcached, {TASKS} tasks, distinct keys, asyncio, TCP",
        "tasks",
        (
            _ours("remote_async:nearcache"),
            Contender(AIOMCACHE, "memcached:aiomcache", "memcached", ("aiomcache",), note="pool_size=2, its default"),
            Contender("aiomcache + json, 100 connections", "memcached:aiomcache_many", "memcached", ("aiomcache",)),
        ),
        kind="awaits",
        rounds=20,
        calls=2_000,
        targets=(Target(AIOMCACHE, 5.0, throughput=True),),
        url="memcached",
        command="get",
    ),
)
