"""A thousand calls at once, by threads and by tasks, over one Memcached server and over three."""

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from nearcache import Cache
from nearcache.backends.registers import turns
from nearcache.backends.registers.turns import AwaitingTurns, BlockingTurns
from tests.faults.calls import face
from tests.integration.redis.helpers import drive
from tests.promises.helpers import Crowd, broken, noticed, values
from tests.servers import MemcachedServer

MANY = 1_000
PATIENCE = 120.0
"""Seconds for all of them; on a slow machine a thousand threads take some 20."""
MOST = 10
"""Connections to each server, for threads and for the tasks of a loop."""


@pytest.fixture(params=[1, 3], ids=["one server", "three servers"])
def cache(request: pytest.FixtureRequest, memcached_servers: list[MemcachedServer]) -> Iterator[Cache]:
    """A cache over some servers; a thousand threads may wait for a connection as long as it takes."""
    url = f"memcached://{','.join(server.where for server in memcached_servers[: request.param])}"
    options: dict[str, Any] = {
        "near": None,
        "timeout": 5.0,
        "pool_max": MOST,
        "pool_timeout": PATIENCE,
        "hard_timeout": PATIENCE,
        "observers": (),
    }
    with Cache(url, namespace=f"t{uuid.uuid4().hex[:10]}", **options) as cache:
        yield cache


class Everybody:
    """What each of a thousand does: something of their own, and what all of them do to the same records."""

    def __init__(self, cache: Cache, flavour: str) -> None:
        self._cache = face(cache, flavour)
        self._numbers = itertools.count()
        self.loads = list[int]()

    async def go(self) -> int:
        """Return the number that counting brought."""
        number, cache = next(self._numbers), self._cache
        key = f"users:{number}"
        await cache.set(key, number, ttl=60, tags=["users"])
        assert await cache.get(key) == number
        assert await cache.get_or_load("shared:1", cache.loader(self._load)) == "loaded"
        total: int = await cache.incr("n:1")
        if not number % 5:
            await cache.invalidate_tags(f"other:{number}")
        assert await cache.delete(key)
        return total

    def _load(self) -> str:
        self.loads.append(1)
        return "loaded"


def check(people: Everybody, crowd: Crowd) -> None:
    """Look at what came of it."""
    totals = values(crowd.start().finish(PATIENCE))
    assert sorted(totals) == list(range(1, MANY + 1)), "somebody's number was lost"
    assert len(people.loads) == 1


def links(cache: Any) -> list[Any]:
    """Return the ways to the servers, of one flavour."""
    found: list[Any] = cache._engine.backend._registers._servers._links
    return found


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_a_thousand_threads(cache: Cache) -> None:
    people = Everybody(cache, "sync")
    check(people, Crowd().threads(MANY, lambda: drive(people.go())))
    assert all(len(link._pool) <= MOST for link in links(cache))


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_a_thousand_tasks(cache: Cache) -> None:
    people, opened = Everybody(cache, "async"), list[int]()

    async def go() -> int:
        total = await people.go()
        opened.extend(len(home.streams) for link in links(cache.aio) for home in link._homes.values())
        return total

    check(people, Crowd().tasks(MANY, go))
    assert max(opened) <= MOST


@pytest.mark.parametrize("cache", [1], ids=["one server"], indirect=True)
@pytest.mark.parametrize(("flavour", "kind"), [("sync", BlockingTurns), ("async", AwaitingTurns)])
def test_without_turns_many_are_crossed_again_and_again(cache: Cache, flavour: str, kind: Any) -> None:
    async def at_once(*_: Any) -> Any:
        return lambda: None

    front = face(cache, flavour)

    async def count() -> None:
        await front.incr("n:1")

    crowd = Crowd().tasks(200, count) if flavour == "async" else Crowd().threads(100, lambda: drive(count()))
    few = broken(turns, "TRIES", 3)
    with few, broken(kind, "_line_up", at_once), broken(kind, "_pause", at_once), noticed("got an error"):
        values(crowd.start().finish())
