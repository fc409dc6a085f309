"""Rows about values in a Hazelcast cluster of one member."""

from bench.row import US, Contender, Row, Target
from bench.rows_shared import OURS
from bench.work import MANY, TASKS

CLIENT = "hazelcast-python-client + json"
LIBRARY = "hazelcast-python-client"


def _pair(build: str, peer: str) -> tuple[Contender, ...]:
    return (
        Contender(US, build, "hazelcast-nearcache", (*OURS, LIBRARY)),
        Contender(CLIENT, f"hazelcast:{peer}", "hazelcast", (LIBRARY,)),
    )


HAZELCAST = (
    Row(
        "hazelcast-get",
        "hazelcast",
        "hit on Hazelcast, a dict of 5 fields, TCP",
        "get",
        _pair("remote:nearcache_get", "client_get"),
        "cpu",
        rounds=60,
        calls=200,
        targets=(Target(CLIENT, 1.15),),
        url="hazelcast",
    ),
    Row(
        "hazelcast-many",
        "hazelcast",
        f"`get_many` of {MANY} on Hazelcast, TCP",
        "many",
        _pair("remote:nearcache_many", "client_many"),
        "cpu",
        rounds=40,
        calls=10,
        targets=(Target(CLIENT, 1.15),),
        url="hazelcast",
        main=False,
    ),
    Row(
        "hazelcast-set",
        "hazelcast",
        "set on Hazelcast, a dict of 5 fields, TCP",
        "set",
        _pair("remote:nearcache_set", "client_set"),
        "cpu",
        rounds=40,
        calls=100,
        targets=(Target(CLIENT, 1.15),),
        url="hazelcast",
        main=False,
    ),
    Row(
        "hazelcast-one-async",
        "hazelcast",
        "hit on Hazelcast, asyncio, one call after the other, TCP",
        "one",
        _pair("remote_async:nearcache", "client_async"),
        "cpu",
        kind="awaits",
        rounds=60,
        calls=200,
        targets=(Target(CLIENT, 1.15),),
        url="hazelcast",
        main=False,
    ),
    Row(
        "hazelcast-tasks",
        "hazelcast",
        f"hits on Hazelcast, {TASKS} tasks, distinct keys, asyncio, TCP",
        "tasks",
        _pair("remote_async:nearcache", "client_async"),
        "cpu",
        kind="awaits",
        rounds=20,
        calls=2_000,
        targets=(Target(CLIENT, 1.15),),
        url="hazelcast",
    ),
)
