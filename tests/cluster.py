"""A cluster of three masters for tests: a single node would not notice a script that touches keys of two slots."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.servers import RedisServer, free_port, redis_server

SLOTS = 16_384
FORMS_WITHIN = 20.0


class Cluster:
    """Three masters that share the slots."""

    def __init__(self, nodes: list[RedisServer]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The address of the cluster: two of its nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[:2])}"

    def slot(self, name: str) -> int:
        """Return the slot of a key of the engine."""
        return int(self.nodes[0].command("CLUSTER", "KEYSLOT", name))

    def owner(self, name: str) -> RedisServer:
        """Return the master that holds a key of the engine."""
        return self.nodes[self.slot(name) * len(self.nodes) // SLOTS]


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a cluster for the `with` block."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(3)]
        nodes = [stack.enter_context(redis_server("redis", *_options(bus))) for bus in buses]
        for place, node in enumerate(nodes):
            first, end = (-(-SLOTS * each // len(nodes)) for each in (place, place + 1))
            node.command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        _wait_until_formed(nodes)
        yield Cluster(nodes)


def _options(bus: int) -> tuple[str, ...]:
    return ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-config-file", "nodes.conf")


def _wait_until_formed(nodes: list[RedisServer]) -> None:
    deadline = time.monotonic() + FORMS_WITHIN
    while not all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in nodes):
        assert time.monotonic() < deadline, "the cluster does not form"
        time.sleep(0.02)


@pytest.fixture(scope="session", name="cluster")
def _session_cluster() -> Iterator[Cluster]:
    """One cluster for the whole run."""
    with cluster() as made:
        yield made
