"""The steps on single records, against a real member."""

import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nearcache._io.port import Flavour
from nearcache.backends.base import Ask
from nearcache.backends.hazelcast import HazelcastBackend, library
from nearcache.backends.hazelcast.registers import HazelcastRegisters
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Step, Swap
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registers.records import stub
from nearcache.backends.registry import BackendSpec, build
from nearcache.errors import BackendError
from tests.hazelcast import Member
from tests.promises.helpers import broken

LARGE = 1 << 20


class World(NamedTuple):
    """Registers over a member, a name there that nobody has used, and the map that has it, as others see it."""

    backend: HazelcastBackend
    name: str
    table: Any

    @property
    def steps(self) -> HazelcastRegisters:
        """The registers."""
        registers = self.backend._registers
        assert isinstance(registers, HazelcastRegisters)
        return registers

    async def take(self, step: Step) -> Answer:
        """Take one step."""
        (answer,) = await self.steps.run(step)
        assert answer.error is None
        return answer

    async def raw(self) -> bytes | None:
        """Return the record."""
        return (await self.take(Look(self.name))).raw

    def expires(self) -> float:
        """Return when the record expires, as the member says, in seconds."""
        at: float = self.table.get_entry_view(self.name).expiration_time / 1_000
        return at


@pytest.fixture(scope="module")
def other(hazelcast: Member) -> Iterator[Any]:
    """A client of somebody else, who trusts what he reads."""
    client: Any = library.HazelcastClient(cluster_name=hazelcast.cluster, cluster_members=[hazelcast.where])
    yield client
    client.shutdown()


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Both flavours; what blocks may be awaited too."""
    chosen: Flavour = request.param
    return chosen


NewWorld = Callable[..., World]


@pytest.fixture
async def new_world(hazelcast: Member, other: Any, flavour: Flavour) -> AsyncIterator[NewWorld]:
    """Make worlds."""
    made = list[World]()

    def new(**options: Any) -> World:
        namespace = f"t{uuid.uuid4().hex[:10]}"
        backend = build(BackendSpec(hazelcast.url, namespace, timeout=5.0, **options), flavour)
        assert isinstance(backend, HazelcastBackend)
        made.append(World(backend, f"{namespace}:t:1", other.get_map(namespace).blocking()))
        return made[-1]

    yield new
    for world in made:
        await world.backend.close()


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    made = new_world()
    await made.backend.open()
    return made


# Steps


async def test_what_was_put_is_there_with_its_life(world: World):
    assert not (await world.take(Look(world.name))).done
    assert (await world.take(Put(world.name, b"a\r\nb\0", 60.0))).done
    answer = await world.take(Look(world.name, life=True))
    assert (answer.done, answer.raw) == (True, b"a\r\nb\0")
    assert answer.left is not None
    assert 50 < answer.left <= 60
    assert (await world.take(Put(world.name, b"", math.inf))).done
    answer = await world.take(Look(world.name, life=True))
    assert (answer.done, answer.raw, answer.left) == (True, b"", math.inf)
    assert world.table.get(world.name) == bytearray(), "others read an array of bytes"


async def test_an_add_stores_where_nothing_is_and_reads_what_is_there(world: World):
    first = await world.take(Add(world.name, b"first", 60.0))
    assert (first.done, first.raw) == (True, b"first")
    second = await world.take(Add(world.name, b"second", 60.0))
    assert (second.done, second.raw, second.number) == (False, b"first", first.number)
    assert (await world.take(Swap(world.name, first, b"third", 60.0))).done


async def test_a_record_is_swapped_only_in_the_state_that_was_seen(world: World):
    await world.take(Put(world.name, b"a", 60.0))
    seen = await world.take(Look(world.name))
    swapped = await world.take(Swap(world.name, seen, b"b", 60.0))
    assert swapped.done
    assert not (await world.take(Swap(world.name, seen, b"c", 60.0))).done
    assert await world.raw() == b"b"
    assert (await world.take(Swap(world.name, swapped, b"d", 60.0))).done
    await world.take(Drop(world.name))
    assert not (await world.take(Swap(world.name, swapped, b"e", 60.0))).done
    assert await world.raw() is None


async def test_a_drop_removes_and_tells_what_was_there(world: World):
    assert not (await world.take(Drop(world.name))).done
    await world.take(Put(world.name, b"a", 60.0))
    assert await world.take(Drop(world.name)) == Answer(True, b"a")
    await world.take(Add(world.name, stub("token", 5.0, None).bytes(), 60.0))
    assert await world.take(Drop(world.name)) == Answer(True, b"\xc0")
    await world.take(Put(world.name, b"a", 60.0))
    seen = await world.take(Look(world.name))
    await world.take(Put(world.name, b"b", 60.0))
    assert not (await world.take(Drop(world.name, seen))).done
    assert (await world.take(Drop(world.name, await world.take(Look(world.name))))).done
    assert await world.raw() is None


async def test_a_record_that_is_known_is_recognised(world: World):
    await world.take(Put(world.name, b"a", 60.0))
    known = await world.take(Look(world.name))
    assert await world.take(Look(world.name, known)) is known
    await world.take(Put(world.name, b"b", 60.0))
    assert (await world.take(Look(world.name, known))).raw == b"b"
    await world.take(Drop(world.name))
    assert not (await world.take(Look(world.name, known))).done


async def test_steps_go_together_and_in_their_order(world: World):
    answers = await world.steps.run(
        Put(world.name, b"1", 60.0), Look(world.name), Drop(world.name), Add(world.name, b"2", 60.0), Look(world.name)
    )
    assert [answer.done for answer in answers] == [True] * 5
    assert [answers[at].raw for at in (1, 3, 4)] == [b"1", b"2", b"2"]
    assert await world.steps.run() == []


async def test_a_thousand_steps_come_back_in_their_order(world: World):
    names = [f"{world.name}{number}" for number in range(1_000)]
    await world.steps.run(*[Put(name, name.encode(), 60.0) for name in names])
    answers = await world.steps.run(*[Look(name) for name in names])
    assert [answer.raw for answer in answers] == [name.encode() for name in names]


async def test_a_large_record_goes_and_comes(world: World):
    large = bytes(range(256)) * (LARGE // 256)
    await world.take(Put(world.name, large, 60.0))
    assert await world.raw() == large


# Lives


@pytest.mark.parametrize("ttl", [0.2, 1.0, 1.4])
async def test_a_record_with_ages_of_its_own_is_there_until_they_are_over(world: World, ttl: float):
    """The member counts from the second in which it gets the record, so that rounding up would not do."""
    began = time.monotonic()
    await world.take(Put(world.name, b"a", ttl))
    while (now := time.monotonic()) < began + ttl:
        assert await world.raw() == b"a" or time.monotonic() > began + ttl, f"gone after {now - began:.2f} s"


async def test_a_record_without_ages_lives_no_longer_than_was_asked_for(new_world: NewWorld):
    world = new_world(enveloped=False)
    await world.take(Put(world.name, b"a", 2.9))
    told = world.expires()
    assert told - world.table.get_entry_view(world.name).last_update_time / 1_000 == 2.0
    assert (await world.take(Put(world.name, b"a", 0.2))).done


@pytest.mark.parametrize("ttl", [60.0, math.inf])
async def test_a_swap_gives_a_new_life(world: World, ttl: float):
    await world.take(Put(world.name, b"a", 600.0))
    assert (await world.take(Swap(world.name, await world.take(Look(world.name)), b"b", ttl))).done
    left = (await world.take(Look(world.name, life=True))).left
    assert left == ttl if ttl == math.inf else left is not None and 50 < left <= 60


async def test_a_swap_may_keep_the_life_exactly_and_as_often_as_you_like(world: World):
    await world.take(Put(world.name, b"0", 600.0))
    told = world.expires()
    for number in range(50):
        seen = await world.take(Look(world.name))
        assert (await world.take(Swap(world.name, seen, b"%d" % (number + 1), None))).done
    assert world.expires() == told
    await world.take(Put(world.name, b"a", math.inf))
    assert (await world.take(Swap(world.name, await world.take(Look(world.name)), b"b", None))).done
    assert (await world.take(Look(world.name, life=True))).left == math.inf


async def test_without_a_second_look_the_life_would_drift(world: World):
    """Whole seconds are all that a member tells; at first, half of one is not known."""

    def expire(steps: HazelcastRegisters, name: str, expires: int) -> Any:
        yield [steps._call("set_ttl", name, max(1, expires // 1_000 - math.floor(time.time() + 0.5)))]

    await world.take(Put(world.name, b"0", 600.0))
    told = world.expires()
    with broken(HazelcastRegisters, "_expire", expire):
        deadline = time.monotonic() + 5.0
        while world.expires() == told and time.monotonic() < deadline:
            seen = await world.take(Look(world.name))
            assert (await world.take(Swap(world.name, seen, seen.raw + b"." if seen.raw else b".", None))).done
    assert world.expires() != told


async def test_the_time_is_that_of_the_member(world: World):
    before = math.floor(time.time())
    assert before <= await world.steps.time() <= time.time(), "this machine has one clock"


async def test_a_default_of_the_map_does_not_end_the_marks(world: World):
    """What is for ever is told so after each swap."""
    await world.backend.marks.mark(["a"], False)
    answer = await world.take(Look(head_of(world.name.partition(":")[0]), life=True))
    assert answer.left == math.inf


# What is not of this library


class Executed:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


async def test_a_hostile_record_is_absent_and_never_executed(world: World, tmp_path: Path):
    path = tmp_path / "executed"
    for hostile in (Executed(path), [Executed(path)], {"a": Executed(path)}):
        world.table.set(world.name, hostile)
        assert await world.backend.get("t:1") is None
        assert await world.backend.get_many(["t:1", "t:2"]) == [None, None]
        assert await world.backend.remaining(["t:1"]) == [None]
        looked = await world.take(Look(world.name, life=True))
        assert looked == Answer(False)
        (grant,) = await world.backend.leases.acquire([Ask("t:1", "token", b"", 30.0)])
        assert grant.leads, "it is replaced"
        world.table.set(world.name, hostile)
        assert await world.take(Drop(world.name)) == Answer(True)
        assert not path.exists()


@pytest.mark.parametrize("foreign", ["text", 7, 1.5, ["a"], True])
async def test_what_is_no_array_of_bytes_is_absent(world: World, foreign: Any):
    world.table.set(world.name, foreign)
    assert await world.raw() is None
    assert (await world.take(Add(world.name, b"a", 60.0))).done
    assert await world.raw() == b"a"


async def test_the_client_by_itself_would_execute_it(world: World, tmp_path: Path):
    path = tmp_path / "executed"
    world.table.set(world.name, Executed(path))
    world.table.get(world.name)
    assert path.exists()


async def test_a_client_that_cannot_be_kept_from_it_is_refused(new_world: NewWorld):
    """As when what it reads with has another name in a later release."""

    def guard(client: Any) -> Any:
        client._serialization_service.read_object_in_another_way = reads = object()
        return reads

    with broken(library, "_guard", guard), pytest.raises(BackendError, match=r"install 5\.7"):
        await new_world().backend.open()


# What the client does beside


async def test_the_client_keeps_quiet_unless_it_is_asked(new_world: NewWorld, caplog: pytest.LogCaptureFixture):
    logger = logging.getLogger("hazelcast")
    before = logger.level
    try:
        for level, said in ((logging.NOTSET, False), (logging.INFO, True)):
            logger.setLevel(level)
            caplog.clear()
            await new_world().backend.open()
            assert any(record.name.startswith("hazelcast") for record in caplog.records) is said
    finally:
        logger.setLevel(before)
