"""A cluster of three primaries for tests: a single node would not notice a script that touches keys of two slots."""

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from tests.proxy import Proxy, proxied
from tests.servers import Kind, RedisServer, free_port

SLOTS = 16_384
WITHIN = 30.0
DOWN_AFTER = 2_000
"""Milliseconds without an answer after which a node is taken for dead, unless a test says otherwise."""


class Node(RedisServer):
    """A server of a cluster; it also needs a port on which the others hear it."""

    bus = 0
    joined = False
    proxy: Proxy | None = None
    """What the others reach that port through, if they can be cut off from this one."""
    source = "127.0.0.1"
    """The address from which it speaks to others."""

    def _command_line(self) -> list[str]:
        if not self.joined:  # another port for each try: somebody may have taken the last one
            self.bus = free_port()
        options = ["--cluster-port", str(self.bus)]
        if self.proxy is not None:
            self.proxy.target = ("127.0.0.1", self.bus)
            options += ["--cluster-announce-bus-port", str(self.proxy.port), "--bind-source-addr", self.source]
            options += ["--protected-mode", "no"]  # which knows one address of this machine only
            options += ["--cluster-require-full-coverage", "no"]  # the others go on
        return [*super()._command_line(), *options]

    @property
    def meeting(self) -> int:
        """The port that others are told of."""
        return self.bus if self.proxy is None else self.proxy.port


class Cluster:
    """Primaries that share the slots, and replicas of theirs; none may be killed but where a test has its own."""

    def __init__(self, nodes: Sequence[Node], replicas: Sequence[Node]) -> None:
        self.nodes = nodes
        self.replicas = replicas

    @property
    def url(self) -> str:
        """The address of the cluster: two of its nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[:2])}"

    def slot(self, name: str) -> int:
        """Return the slot of a key of the engine."""
        return int(self.nodes[0].command("CLUSTER", "KEYSLOT", name))

    def owner(self, name: str) -> RedisServer:
        """Return the primary that keeps a key of the engine, by its own account: others may hear of it later."""
        running = next(node for node in self.nodes if node.running)
        slot = int(running.command("CLUSTER", "KEYSLOT", name))
        everybody = [node for node in (*self.nodes, *self.replicas) if node.running]
        return next((node for node in everybody if _keeper(node, slot) == node.port), running)

    def told(self, node: RedisServer, name: str) -> int:
        """Return the port of the primary that keeps a key of the engine, as a node tells; 0 for none."""
        return _keeper(node, self.slot(name))

    def cut_off(self, node: RedisServer) -> None:
        """Let one node and the others hear nothing of each other any more; clients reach all of them as before."""
        for each in (*self.nodes, *self.replicas):
            assert each.proxy is not None, "the cluster cannot be parted"
            others = {other.source for other in (*self.nodes, *self.replicas) if other is not each}
            each.proxy.bar(others if each is node else {other.source for other in self.nodes if other is node})

    def others(self, node: RedisServer) -> list[RedisServer]:
        """Return the primaries beside one."""
        return [other for other in self.nodes if other is not node]

    def move(self, name: str, target: RedisServer) -> None:
        """Move the slot of a key of the engine, with everything in it."""
        with self.moving(name, target):
            pass

    @contextmanager
    def moving(self, name: str, target: RedisServer) -> Iterator[Callable[..., None]]:
        """Begin to move the slot of a key; yield what carries single keys over; in the end move the rest."""
        slot, source = self.slot(name), self.owner(name)
        ids = {node: node.command("CLUSTER", "MYID").decode() for node in (source, target)}
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])

        def carry(*names: str | bytes) -> None:
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)

        try:
            yield carry
        finally:
            while names := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                carry(*names)
            for node in (target, *self.others(target)):
                node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
            _wait(lambda: all(_keeper(node, slot) == target.port for node in self.nodes), "they do not agree")
            # Else the next move might get the number of this one, and nobody would know which was the later.
            _wait(lambda: len({_epoch(node) for node in self.nodes}) == 1, "they do not hear of the move")


@contextmanager
def cluster(
    kind: Kind = "redis", replicas: int = 0, spare: int = 0, down_after: int = DOWN_AFTER, *, parted: bool = False
) -> Iterator[Cluster]:
    """Run a cluster for the `with` block: so many replicas of each primary, and primaries without a slot.

    `down_after` is how many milliseconds a node may be silent, `parted` whether nodes may be cut off from the others.
    """
    sources = itertools.count(2)
    with ExitStack() as stack:

        def started() -> Node:
            node = Node(kind, *_options(down_after))
            stack.callback(node.remove)
            if parted:
                node.proxy, node.source = stack.enter_context(proxied(0)), f"127.0.0.{next(sources)}"
            node.start()
            node.joined = True
            return node

        nodes = [started() for _ in range(3)]
        followers, spares = [started() for _ in range(3 * replicas)], [started() for _ in range(spare)]
        for place, node in enumerate(nodes):
            first, end = (-(-SLOTS * each // len(nodes)) for each in (place, place + 1))
            node.command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        everybody = [*nodes, *followers, *spares]
        for place, node in enumerate(everybody):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
            if place:
                nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, node.meeting)
        _wait(lambda: all(_knows(node, len(everybody)) for node in everybody), "the cluster does not form")
        for place, node in enumerate(followers):
            _follow(node, nodes[place % 3])
        _wait(lambda: all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in everybody), "it is down")
        yield Cluster([*nodes, *spares], followers)


def _keeper(node: RedisServer, slot: int) -> int:
    """Return the port of the node that keeps a slot, as a node tells; 0 for none."""
    told = node.command("CLUSTER", "SLOTS")
    return next((int(entry[2][1]) for entry in told if entry[0] <= slot <= entry[1]), 0)


def _epoch(node: RedisServer) -> bytes:
    """Return the number of the latest change that a node has heard of."""
    found = re.search(rb"cluster_current_epoch:(\d+)", node.command("CLUSTER", "INFO"))
    assert found
    return found[1]


def _follow(replica: RedisServer, primary: RedisServer) -> None:
    replica.command("CLUSTER", "REPLICATE", primary.command("CLUSTER", "MYID"))
    _wait(lambda: b"master_link_status:up" in replica.command("INFO", "replication"), "a replica does not follow")


def _options(down_after: int) -> tuple[str, ...]:
    cluster = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    stay = ("--cluster-allow-replica-migration", "no")  # a primary whose last slot moves would become a replica
    return (*cluster, *stay, "--cluster-node-timeout", str(down_after), "--repl-diskless-sync-delay", "0")


def _knows(node: RedisServer, count: int) -> bool:
    return f"cluster_known_nodes:{count}".encode() in node.command("CLUSTER", "INFO")


def _wait(true: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + WITHIN
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


@pytest.fixture(scope="session", name="cluster")
def _session_cluster() -> Iterator[Cluster]:
    """One cluster for the whole run; whoever moves a slot moves it back."""
    with cluster() as made:
        yield made
