"""Caches for tests that are written once: either flavour, over any engine, with or without a near tier, awaited."""

import contextlib
import functools
import inspect
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import tests.registers  # noqa: F401  # its scheme
from nearcache import AsyncCache, Cache, Held
from tests.cluster import Cluster
from tests.hazelcast import Member
from tests.servers import MemcachedServer, RedisServer

ENGINES = ("memory", "redis", "embedded", "cluster", "registers", "memcached", "hazelcast")


class Awaited:
    """Either face behind one front: every verb is awaited, and functions to decorate are given as plain ones."""

    def __init__(self, cache: Cache | AsyncCache) -> None:
        self.cache: Any = cache
        self.is_async = isinstance(cache, AsyncCache)
        self.is_near = cache._parts.core.options.near is not None

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.cache, "aclose" if name == "close" and self.is_async else name)
        return self.awaited(verb) if callable(verb) and name not in PLAIN else verb

    def awaited(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        """Make a verb's result awaitable where it is not."""

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = verb(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return call

    def loader(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Turn a plain function into one of this flavour."""
        if not self.is_async:
            return function

        @functools.wraps(function)
        async def load(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return load

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Run a block as a transaction."""
        if self.is_async:
            async with self.cache.transaction():
                yield
        else:
            with self.cache.transaction():
                yield

    @contextlib.asynccontextmanager
    async def lock(self, *args: Any, **options: Any) -> AsyncIterator[Held]:
        """Hold a lock during a block."""
        if self.is_async:
            async with self.cache.lock(*args, **options) as held:
                yield held
        else:
            with self.cache.lock(*args, **options) as held:
                yield held

    @contextlib.asynccontextmanager
    async def semaphore(self, *args: Any, **options: Any) -> AsyncIterator[Held]:
        """Hold a permit during a block."""
        if self.is_async:
            async with self.cache.semaphore(*args, **options) as held:
                yield held
        else:
            with self.cache.semaphore(*args, **options) as held:
                yield held

    @contextlib.asynccontextmanager
    async def rwlock(self, side: str, *args: Any, **options: Any) -> AsyncIterator[Held]:
        """Hold a lock during a block, "reading" or "writing"."""
        block = getattr(self.cache.rwlock(*args, **options), side)()
        if self.is_async:
            async with block as held:
                yield held
        else:
            with block as held:
                yield held

    async def scanned(self, prefix: str = "") -> list[str]:
        """Return what `scan` brings."""
        pages = self.cache.scan(prefix)
        return sorted([key async for key in pages] if self.is_async else list(pages))


PLAIN = {
    "cached",
    "writes",
    "exclusive",
    "limiter",
    "key",
    "engine_key",
    "stats",
    "disabled",
    "bypass",
    "memo",
    "aio",
    "sync",
}


def urls_of(engine: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of an engine that is there for the whole run."""
    if engine == "memory":
        return "memory://"
    if engine == "registers":
        return "forgetful://faces"
    if engine == "memcached":
        servers: list[MemcachedServer] = request.getfixturevalue("memcached_servers")
        return f"memcached://{','.join(server.where for server in servers)}"
    if engine == "hazelcast":
        member: Member = request.getfixturevalue("hazelcast")
        return member.url
    if engine == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        return cluster.url
    if engine == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.unix_url
    directory: Path = request.getfixturevalue("embedded_directory")
    return f"embedded://{directory}"


@pytest.fixture(scope="session")
def embedded_directory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A directory whose embedded engine stays up between tests."""
    directory = tmp_path_factory.mktemp("embedded") / "data"
    with Cache(f"embedded://{directory}"):
        yield directory


@pytest.fixture(params=list(itertools.product(ENGINES, ("sync", "async"), ("near", "far"))), ids="-".join)
async def face(request: pytest.FixtureRequest) -> AsyncIterator[Awaited]:
    """A cache of every kind, in a namespace of its own; the marker `options` adds options."""
    engine, flavour, near = request.param
    marker = request.node.get_closest_marker("options")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    if near == "far":
        options["near"] = None
    kind: Any = Cache if flavour == "sync" else AsyncCache
    options.setdefault("namespace", f"f{uuid.uuid4().hex[:10]}")
    options.setdefault("timeout", 5.0)  # the machine may be busy
    awaited = Awaited(kind(urls_of(engine, request), **options))
    yield awaited
    await awaited.close()
