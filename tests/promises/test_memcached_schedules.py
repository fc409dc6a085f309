"""Readers and invalidators over real memcached servers, in many orders of the steps of their records.

The head of a namespace, its buckets and its values lie on three servers, each of which may lose a record, or be killed
and started again, between any two steps.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from nearcache._io.blocking import drive
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Step, Swap
from nearcache.backends.registers.leases import RegisterLeases
from tests.memcached import registers
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, noticed
from tests.promises.schedules import evict
from tests.promises.test_register_schedules import (
    INVALIDATIONS,
    LONG,
    NAMES,
    Registers,
    Work,
    _limits,
    forgotten,
    losing,
    marking,
    unguarded,
)
from tests.promises.test_schedules import reader, write_through
from tests.registers import NODES, Node
from tests.servers import MemcachedServer, memcached_server

SAMPLES = 12


class RealNode(Node):
    """A node that is a memcached."""

    def __init__(self, server: MemcachedServer) -> None:
        self.server = server
        self.steps, self.way = registers(server)
        self.stored = set[str]()
        super().__init__()

    def restart(self) -> None:
        """Lose everything; quicker than a restart."""
        for name in self.stored:
            self.lose(name)

    def close(self) -> None:
        """Give up the connection."""
        drive(self.steps.close())

    def reboot(self) -> None:
        """Kill the server, and start it again."""
        self.server.kill()
        self.server.start()

    def lose(self, name: str) -> None:
        """Lose one record."""
        self._take(Drop(name))

    def names(self) -> list[str]:
        """Return the names of all records."""
        return list(self.stored)

    def look(self, name: str) -> Answer:
        """Read a record."""
        return self._take(Look(name))

    def put(self, name: str, raw: bytes, ttl: float) -> Answer:
        """Store a record."""
        self.stored.add(name)
        return self._take(Put(name, raw, ttl))

    def add(self, name: str, raw: bytes, ttl: float) -> bool:
        """Store a record if there is none."""
        self.stored.add(name)
        return self._take(Add(name, raw, ttl)).done

    def swap(self, step: Swap) -> Answer:
        """Store a record in the place of another state of it."""
        return self._take(step)

    def drop(self, step: Drop) -> Answer:
        """Remove a record."""
        return self._take(step)

    def _take(self, step: Step) -> Answer:
        for _ in range(3):  # the connection of a server that was killed, one of another life, and one of its present
            (answer,) = drive(self.steps.run(step))
            if answer.error is None:
                return answer
        raise AssertionError("no answer")


@pytest.fixture
def world(new_cache: NewCache) -> Iterator[Registers]:
    """A head that makes room before it is marked, and servers for what it needs."""
    with ExitStack() as stack:
        stack.enter_context(_limits(before=True))
        made = Registers(new_cache, "forgetful://memcached")
        for name in NODES[:3]:
            node = RealNode(stack.enter_context(memcached_server("-m", "16")))
            stack.callback(node.close)
            made.server.nodes[name] = node
        yield made


def rebooting(world: Registers, name: str) -> Work:
    """An actor that kills a server and starts it again."""

    async def reboot() -> None:
        node = world.server.nodes[name]
        assert isinstance(node, RealNode)
        node.reboot()

    return lambda source, cache: evict(reboot)


@pytest.mark.parametrize("warm", ["cold", "cached", "old"])
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_and_an_invalidator(world: Registers, name: str, warm: str) -> None:
    world.by_luck([reader, INVALIDATIONS[name]], warm, SAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("node", NODES[:3])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_lost_at_any_moment_costs_loads_and_no_old_values(world: Registers, name: str, node: str) -> None:
    for warm in ("cold", "old"):
        world.by_luck([reader, INVALIDATIONS[name], losing(world, node)], warm, SAMPLES // 2)


@pytest.mark.slow
@pytest.mark.parametrize("node", NODES[:3])
@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_is_restarted_at_any_moment_costs_loads_and_no_old_values(
    world: Registers, name: str, node: str
) -> None:
    for warm in ("cold", "old"):
        world.by_luck([reader, INVALIDATIONS[name], rebooting(world, node)], warm, SAMPLES // 2)


@pytest.mark.slow
def test_a_mark_survives_others_that_drive_it_out_of_the_head(world: Registers) -> None:
    for other in (marking(LONG), reader, INVALIDATIONS["tag of the result"]):
        for lost in (False, True):
            world.by_luck([other, forgotten(world, lost=lost)], "old", SAMPLES // 2)


def test_two_write_throughs_leave_the_newest_or_nothing(world: Registers) -> None:
    world.by_luck([write_through, write_through, reader], "cached", SAMPLES)


def test_a_store_that_looks_at_no_token_is_noticed(world: Registers) -> None:
    with broken(RegisterLeases, "_store", unguarded), noticed("is left|got version"):
        world.every([reader, INVALIDATIONS["delete"]], "cold", 2_000)
