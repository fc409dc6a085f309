"""Fixtures of the tests of the guarantees: engines, and caches that are closed at the end."""

import itertools
import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache import Cache
from tests.cluster import Cluster
from tests.hazelcast import Member
from tests.promises.helpers import Alarm
from tests.servers import MemcachedServer, RedisServer

NewCache = Callable[..., Cache]
_numbers = itertools.count()


def url_of(engine: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of an engine that is there for the whole run."""
    if engine == "memory":
        return "memory://"
    if engine == "embedded":
        return f"embedded://{request.getfixturevalue('embedded_directory')}"
    if engine == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        return cluster.url
    if engine == "memcached":
        servers: list[MemcachedServer] = request.getfixturevalue("memcached_servers")
        return f"memcached://{','.join(server.where for server in servers)}"
    if engine == "hazelcast":
        member: Member = request.getfixturevalue("hazelcast")
        return member.url
    server: RedisServer = request.getfixturevalue(f"{engine}_server")
    return server.unix_url


@pytest.fixture(params=["memory", "valkey"])
def url(request: pytest.FixtureRequest) -> str:
    """The two kinds of engines: one in this process, one shared."""
    return url_of(request.param, request)


@pytest.fixture
def valkey_url(request: pytest.FixtureRequest) -> str:
    """An engine that others share, for tests that need no more than one of them."""
    return url_of("valkey", request)


@pytest.fixture(params=["valkey", "hazelcast"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """The two kinds of engines that others share and that announce changes."""
    return url_of(request.param, request)


@pytest.fixture(params=["memory", "valkey", "redis", "embedded", "cluster", "hazelcast"])
def any_url(request: pytest.FixtureRequest) -> str:
    """Every engine."""
    return url_of(request.param, request)


@pytest.fixture(params=["valkey", "redis", "memcached"])
def wired_url(request: pytest.FixtureRequest) -> str:
    """Every engine that has connections of another kind."""
    return url_of(request.param, request)


@pytest.fixture
def new_cache() -> Iterator[NewCache]:
    """Make caches, each in a namespace of its own unless the test says otherwise."""
    made: list[Cache] = []

    def new(url: str, **options: Any) -> Cache:
        options.setdefault("namespace", f"p{uuid.uuid4().hex[:10]}")
        usual = {"pool_min": 1, "observers": (), "timeout": 3.0}  # the machine may be busy
        cache = Cache(url, **{**usual, **options})
        made.append(cache)
        return cache

    yield new
    for cache in made:
        cache.close()


@pytest.fixture
def fresh_key() -> Callable[[], str]:
    """Make keys that nobody has used yet."""
    return lambda: f"keys:{next(_numbers)}"


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    """An alarm, and the usual handler afterwards."""
    alarm = Alarm()
    before = signal.signal(signal.SIGALRM, alarm)
    yield alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
