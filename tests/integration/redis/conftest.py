"""Fixtures for the Redis backend: a namespace per test, a backend in both flavours."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from nearcache import Cache
from nearcache.backends.redis import RedisBackend
from nearcache.backends.registry import Flavour
from tests.integration.redis.helpers import made
from tests.servers import RedisServer

NewCache = Callable[..., Cache]


@pytest.fixture
def namespace() -> str:
    """A namespace of this test only."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Both flavours in turn; a blocking backend's coroutines may be awaited too."""
    chosen: Flavour = request.param
    return chosen


@pytest.fixture
async def backend(any_server: RedisServer, flavour: Flavour, namespace: str) -> AsyncIterator[RedisBackend]:
    """A backend over each server in each flavour."""
    backend = made(any_server.unix_url, flavour, namespace)
    await backend.open()
    yield backend
    await backend.close()


@pytest.fixture
def new_cache(namespace: str) -> Iterator[NewCache]:
    """Makes caches of one namespace, each of which stands for a process."""
    opened = list[Cache]()

    def new(url: str, **options: Any) -> Cache:
        options = {"observers": (), "pool_min": 1, "namespace": namespace, **options}
        opened.append(Cache(url, **options))
        return opened[-1]

    yield new
    for cache in opened:
        cache.close()
