"""Readers and invalidators over a real member of Hazelcast, in many orders of the calls of their steps.

Whoever swaps a record tells its life afterwards; others may go on in between, or the process may die there.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from nearcache._io.blocking import drive
from nearcache.backends.hazelcast.blocking import BlockingMaps
from nearcache.backends.hazelcast.connect import cluster_of
from nearcache.backends.hazelcast.feed import Feed, ring_of
from nearcache.backends.hazelcast.maps import Call, Place
from nearcache.backends.hazelcast.registers import HazelcastRegisters
from nearcache.backends.registers.base import Answer, Drop, Put, Step, Swap
from nearcache.backends.registers.leases import RegisterLeases
from tests.hazelcast import Member
from tests.promises.conftest import NewCache
from tests.promises.helpers import broken, noticed
from tests.promises.test_register_schedules import (
    INVALIDATIONS,
    LONG,
    NAMES,
    Registers,
    _limits,
    dying,
    forgotten,
    losing,
    marking,
    unguarded,
)
from tests.promises.test_schedules import reader, write_through
from tests.registers import NODES, Node

SAMPLES = 12
TIMEOUT = 30.0


class RealNode(Node):
    """What a member keeps under one name."""

    def __init__(self, steps: HazelcastRegisters, name: str) -> None:
        self._steps = steps
        self._name = name
        super().__init__()

    def restart(self) -> None:
        """Lose it."""
        self.lose(self._name)

    def lose(self, name: str) -> None:
        """Lose a record."""
        (answer,) = drive(self._steps.run(Drop(name)))
        assert answer.error is None


class PausedMaps(BlockingMaps):
    """The way to the maps of a member; others may go on before each of its trips."""

    def __init__(self, place: Place, world: Registers) -> None:
        super().__init__(place)
        self._server = world.server

    async def call(self, calls: Sequence[Call], until: float) -> list[Any]:
        """Let others go on, then send."""
        if self._server.pause is not None:
            await self._server.pause(calls[-1].method)
        return await super().call(calls, until)


@pytest.fixture
def world(new_cache: NewCache, hazelcast: Member) -> Iterator[Registers]:
    """A head that makes room before it is marked, and real records for it, its bucket and the value."""
    with _limits(before=True):
        made = Registers(new_cache, "forgetful://bytes-of-hazelcast")
        namespace = made.names["head"].partition("~")[0]
        tables = (namespace, made.names["head"])
        place = Place(cluster_of(hazelcast.url), tables, ring_of(namespace), TIMEOUT, TIMEOUT)
        maps = PausedMaps(place, made), BlockingMaps(place)
        steps, others = [HazelcastRegisters(way, namespace, True, TIMEOUT, Feed(namespace)) for way in maps]

        async def run(step: Step) -> Answer:
            (answer,) = await steps.run(step)
            assert answer.error is None
            return answer

        with broken(made.server, "run", run), broken(made.server, "nodes", {}):
            for node in NODES[:3]:
                made.server.nodes[node] = RealNode(others, made.names[node])
            yield made
        for way in maps:
            drive(way.close())


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
@pytest.mark.parametrize("steps", range(1, 12, 2))
def test_who_dies_at_any_moment_leaves_no_old_values(world: Registers, steps: int) -> None:
    """Also between a swap and the life that is told afterwards. The lease of a loader that died ends soon here."""
    with broken(RegisterLeases, "life", 0.05):
        world.by_luck([dying(reader, steps), reader, INVALIDATIONS["delete"]], "old", SAMPLES // 4)
    world.by_luck([reader, dying(INVALIDATIONS["static tag"], steps), INVALIDATIONS["clear"]], "old", SAMPLES // 4)


@pytest.mark.slow
def test_a_mark_survives_others_that_drive_it_out_of_the_head(world: Registers) -> None:
    for other in (marking(LONG), reader, INVALIDATIONS["tag of the result"]):
        for lost in (False, True):
            world.by_luck([other, forgotten(world, lost=lost)], "old", SAMPLES // 4)


def test_two_write_throughs_leave_the_newest_or_nothing(world: Registers) -> None:
    world.by_luck([write_through, write_through, reader], "cached", SAMPLES)


def test_a_store_that_looks_at_no_token_is_noticed(world: Registers) -> None:
    with broken(RegisterLeases, "_store", unguarded), noticed("is left|got version"):
        world.every([reader, INVALIDATIONS["delete"]], "cold", 2_000)


def test_a_swap_that_compares_nothing_is_noticed(world: Registers) -> None:
    def swap(steps: HazelcastRegisters, step: Swap) -> Any:
        return steps._put(Put(step.name, step.raw, 60.0))

    with broken(HazelcastRegisters, "_swap", swap), noticed("is left|got version"):
        world.every([reader, INVALIDATIONS["delete"]], "cold", 2_000)
