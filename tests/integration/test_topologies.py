"""What works, and what can be relied on, on each topology: each is tried, and a page shows what was found.

The command of the doctor tries every part. Beside what it finds stand limits that cannot be tried in a moment; other
tests show those, see `LIMITS`.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nearcache import Cache
from nearcache._checkup import examine
from nearcache.cli.doctor import GUARANTEES, NATURE, held
from tests.cluster import Cluster
from tests.hazelcast import Member
from tests.integration.redis.helpers import eventually
from tests.sentinel import Group
from tests.servers import MemcachedServer, RedisServer, redis_server
from tools.topologies import FOLDER, ORDER

SETTINGS = {"default life", "memory", "persistence", "clock", "role"}
"""Parts that say how a server was set up, and not what can be done with it."""

EVER_LIMITED: dict[str, set[str]] = {
    "memory": {"One load, however many ask", "After a restart or a fail-over"},
    "Sentinel": set(GUARANTEES) - {"You read what you wrote"},
    "Cluster": set(GUARANTEES) - {"You read what you wrote"},
    "Memcached": {"One load, however many ask", "How old a near value may be"},
    "Hazelcast": set(GUARANTEES) - {"You read what you wrote"},
}
"""What does not hold without a condition, however well the engine is set up. The conditions of fail-overs are shown by
tests/promises/test_engine_reset.py and tests/faults/test_failover.py.
"""

REPLICATED = "read_from_replicas=yes"


@pytest.fixture(params=ORDER)
def topology(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The name of each topology and a URL."""
    name: str = request.param
    match name:
        case "memory":
            yield name, "memory://"
        case "embedded":
            yield name, f"embedded://{tmp_path / 'data'}"
        case "one server":
            server: RedisServer = request.getfixturevalue("valkey_server")
            with redis_server("valkey", "--replicaof", f"127.0.0.1 {server.port}") as replica:
                eventually(lambda: replica.info("replication")["master_link_status"] == "up", "it follows", within=20.0)
                yield name, f"{server.url}?{REPLICATED}"
        case "Sentinel":
            group: Group = request.getfixturevalue("watched")
            yield name, f"{group.url}?{REPLICATED}"
        case "Memcached":
            servers: list[MemcachedServer] = request.getfixturevalue("memcached_servers")
            yield name, f"memcached://{','.join(server.where for server in servers)}"
        case "Hazelcast":
            member: Member = request.getfixturevalue("hazelcast")
            yield name, member.url
        case _:
            cluster: Cluster = request.getfixturevalue("cluster")
            yield name, cluster.url


def test_every_part_works_or_there_is_nothing_to_try(topology: tuple[str, str]) -> None:
    name, url = topology
    with closing(Cache(url, namespace="topologies", observers=())) as cache:
        checks = [check for check in examine(cache) if check.name not in SETTINGS]
    assert not [check for check in checks if check.works is False]
    lacks = held(checks)
    assert {title for title, lack in lacks.items() if lack} == EVER_LIMITED.get(name, set())
    record: dict[str, Any] = {
        "topology": name,
        "parts": {check.name: check.works for check in checks if check.name not in NATURE},
        "guarantees": lacks,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{ORDER.index(name)}.json").write_text(json.dumps(record, indent=1) + "\n")
