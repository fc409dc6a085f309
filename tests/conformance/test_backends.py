"""Every backend passes the public suite, with and without headers in front of its records."""

import dataclasses
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.registers  # noqa: F401  # its scheme
from nearcache._io.port import Flavour
from nearcache.backends.base import Backend
from nearcache.backends.registry import BackendSpec, build
from nearcache.near.store import Limit, Store
from nearcache.near.view import View
from nearcache.testing import BackendConformance, Faults, FaultyBackend
from tests.cluster import Cluster
from tests.hazelcast import Member
from tests.rights import permissions, user
from tests.sentinel import Group
from tests.servers import MemcachedServer, RedisServer
from tests.tls import TlsServer

PATIENCE = 5.0
"""Seconds for the engine to answer: more than a cache would wait, for the machine may be busy."""


class Built(BackendConformance):
    """Builds the backend of a URL."""

    url: str
    store: Store | None = None

    def build(self, flavour: Flavour) -> Backend:
        """Build it in the namespace of this test."""
        view = View(time.monotonic, 1.0, fixed=self.store is not None or not self.enveloped)
        spec = BackendSpec(self.url, self.namespace, enveloped=self.enveloped, store=self.store, view=view)
        return build(dataclasses.replace(spec, timeout=PATIENCE), flavour)

    @pytest.fixture(autouse=True)
    def _own_namespace(self) -> None:
        self.namespace = f"c{uuid.uuid4().hex[:12]}"


class TestMemory(Built):
    """memory://, over the store that the near tier serves from."""

    url = "memory://"

    @pytest.fixture(autouse=True)
    def _own_store(self) -> None:
        self.store = Store(Limit(bytes=64_000_000), time.monotonic, source=True)


class TestMemoryWithoutHeaders(TestMemory):
    """The same for values that other languages share."""

    enveloped = False


class TestRedis(Built):
    """Redis and Valkey over a unix socket."""

    @pytest.fixture(autouse=True)
    def _server(self, any_server: RedisServer) -> None:
        self.url = any_server.unix_url


class TestRedisOverTcp(Built):
    """Redis and Valkey over TCP."""

    @pytest.fixture(autouse=True)
    def _server(self, any_server: RedisServer) -> None:
        self.url = any_server.url


class TestRedisWithTheLeastRights(Built):
    """Redis and Valkey for a user who may do what the page on rights says, and nothing else."""

    @pytest.fixture(autouse=True)
    def _user(self, any_server: RedisServer, _own_namespace: None) -> Iterator[None]:
        with user(any_server, self.namespace, permissions(self.namespace)) as self.url:
            yield


@pytest.mark.soak
class TestRedisOfOtherVersions(Built):
    """The oldest Redis that works, and a newer one, each for a user with the least rights."""

    @pytest.fixture(autouse=True)
    def _user(self, versioned_server: RedisServer, _own_namespace: None) -> Iterator[None]:
        with user(versioned_server, self.namespace, permissions(self.namespace)) as self.url:
            yield


@pytest.mark.soak
class TestRedisOfOtherVersionsWithoutHeaders(TestRedisOfOtherVersions):
    """The same for values that other languages share."""

    enveloped = False


class TestRedisOverTls(Built):
    """Redis over TLS, with an authority of its own and a certificate of the client."""

    @pytest.fixture(autouse=True)
    def _server(self, tls_server: TlsServer) -> None:
        self.url = tls_server.tls_url()


class TestRedisThroughSentinels(Built):
    """A replicated engine whose primary sentinels tell."""

    @pytest.fixture(autouse=True)
    def _group(self, watched: Group) -> None:
        self.url = watched.url


class TestRedisCluster(Built):
    """Three primaries, each with its share of the keys."""

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Cluster) -> None:
        self.url = cluster.url


class TestRedisClusterWithoutHeaders(TestRedisCluster):
    """The same for values that other languages share."""

    enveloped = False


class TestRedisWithoutHeaders(TestRedis):
    """The same for values that other languages share."""

    enveloped = False


class TestEmbedded(Built):
    """The embedded engine, persistent."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.url = f"embedded://{tmp_path / 'data'}"


class TestRegisters(Built):
    """An engine without scripts whose records have numbers."""

    url = "forgetful://numbers"


class TestRegistersWithoutHeaders(TestRegisters):
    """The same for values that other languages share."""

    enveloped = False


class TestRegistersThatCompareBytes(TestRegisters):
    """An engine without scripts that compares records."""

    url = "forgetful://bytes"


class TestRegistersThatCompareBytesWithoutHeaders(TestRegistersThatCompareBytes):
    """The same for values that other languages share."""

    enveloped = False


class TestMemcached(Built):
    """One Memcached server."""

    @pytest.fixture(autouse=True)
    def _server(self, memcached: MemcachedServer) -> None:
        self.url = f"memcached://{memcached.where}"


class TestMemcachedWithoutHeaders(TestMemcached):
    """The same for values that other languages share."""

    enveloped = False


class TestSeveralMemcached(Built):
    """Three Memcached servers, each with its share of the keys."""

    @pytest.fixture(autouse=True)
    def _servers(self, memcached_servers: list[MemcachedServer]) -> None:
        self.url = f"memcached://{','.join(server.where for server in memcached_servers)}"


class TestHazelcast(Built):
    """One member of Hazelcast."""

    @pytest.fixture(autouse=True)
    def _member(self, hazelcast: Member) -> None:
        self.url = hazelcast.url


class TestHazelcastWithoutHeaders(TestHazelcast):
    """The same for values that other languages share."""

    enveloped = False


@pytest.mark.soak
class TestHazelcastOfAnotherVersion(Built):
    """The oldest members that the library is tried with."""

    @pytest.fixture(autouse=True)
    def _member(self, older_hazelcast: Member) -> None:
        self.url = older_hazelcast.url


class TestFaulty(TestMemory):
    """The wrapper for tests passes everything on, ports included, while nothing is planned."""

    def build(self, flavour: Flavour) -> Backend:
        """Wrap the backend."""
        return FaultyBackend(super().build(flavour), Faults())
