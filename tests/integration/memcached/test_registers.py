"""The steps on single records, against a real memcached."""

import math
import time
import uuid
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from nearcache.backends.memcached import dialect
from nearcache.backends.memcached.registers import COARSE, MemcachedRegisters
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Step, Swap
from nearcache.backends.registers.records import stub
from nearcache.errors import BackendError, BackendUnavailableError, InvalidKeyError
from tests.memcached import Connection, PlainServers, registers
from tests.promises.helpers import eventually
from tests.servers import MemcachedServer, memcached_server


class World(NamedTuple):
    """Registers over one server, and a name that nobody has used."""

    steps: MemcachedRegisters
    way: PlainServers
    name: str

    async def take(self, step: Step) -> Answer:
        """Take one step."""
        (answer,) = await self.steps.run(step)
        return answer

    async def raw(self) -> bytes | None:
        """Return the record."""
        return (await self.take(Look(self.name))).raw


@pytest.fixture
async def world(memcached: MemcachedServer) -> AsyncIterator[World]:
    steps, way = registers(memcached)
    await steps.open()
    yield World(steps, way, f"t:{uuid.uuid4().hex}")
    await steps.close()


@pytest.fixture
async def own(own_memcached: MemcachedServer) -> AsyncIterator[World]:
    steps, way = registers(own_memcached)
    await steps.open()
    yield World(steps, way, "t:1")
    await steps.close()


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


async def test_an_add_stores_where_nothing_is_and_reads_what_is_there(world: World):
    first = await world.take(Add(world.name, b"first", 60.0))
    assert (first.done, first.raw) == (True, b"first")
    second = await world.take(Add(world.name, b"second", 60.0))
    assert (second.done, second.raw, second.number) == (False, b"first", first.number)
    assert world.way.trips == 2
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
    assert not (await world.take(Swap(world.name, seen, b"e", 60.0))).done
    await world.take(Put(world.name, b"a", 60.0))
    assert not (await world.take(Swap(world.name, seen, b"f", 60.0))).done
    assert await world.raw() == b"a"


async def test_a_swap_may_keep_the_life(world: World):
    await world.take(Put(world.name, b"a", 600.0))
    assert (await world.take(Swap(world.name, await world.take(Look(world.name)), b"b", None))).done
    left = (await world.take(Look(world.name, life=True))).left
    assert left is not None
    assert 500 < left <= 600
    await world.take(Put(world.name, b"a", math.inf))
    assert (await world.take(Swap(world.name, await world.take(Look(world.name)), b"b", None))).done
    assert (await world.take(Look(world.name, life=True))).left == math.inf
    blind = Answer(True, None, (await world.take(Look(world.name))).number)
    assert not (await world.take(Swap(world.name, blind, b"c", None))).done, "nobody knows its life"


async def test_the_last_second_of_a_life_is_kept_as_a_second_and_not_for_ever(world: World):
    await world.take(Put(world.name, b"a", 600.0))
    seen = await world.take(Look(world.name))
    last = Answer(True, seen.raw, seen.number, 0.0)
    assert (await world.take(Swap(world.name, last, b"b", None))).done
    left = (await world.take(Look(world.name, life=True))).left
    assert left is None or left <= 1.0


async def test_a_number_that_is_added_to_keeps_its_life_to_the_second(world: World):
    """Also where the server's next second begins between the look and the swap; any other record gains one then."""
    number, other = world.name, f"{world.name}:other"
    await world.steps.run(Put(number, b"5", 60.0), Put(other, b"a", 60.0))
    seen = await world.steps.run(Look(number), Look(other))
    began = await world.steps.time()
    deadline = time.monotonic() + 5
    while await world.steps.time() == began:
        assert time.monotonic() < deadline, "the server's clock stands"
    for each in await world.steps.run(Swap(number, seen[0], b"7", None), Swap(other, seen[1], b"b", None)):
        assert each.done
    added, swapped = await world.steps.run(Look(number), Look(other))
    assert (added.raw, swapped.raw) == (b"7", b"b")
    assert added.left is not None
    assert swapped.left is not None
    assert added.left < swapped.left


@pytest.mark.parametrize("numbers", [(b"9", b"10"), (b"10", b"9"), (b"5", b"5"), (b"0", b"9223372036854775807")])
async def test_a_number_becomes_another_only_in_the_state_that_was_seen(world: World, numbers: tuple[bytes, bytes]):
    old, new = numbers
    await world.take(Put(world.name, old, 60.0))
    seen = await world.take(Look(world.name))
    swapped = await world.take(Swap(world.name, seen, new, None))
    assert (swapped.done, int(await world.raw() or b"")) == (True, int(new))
    assert not (await world.take(Swap(world.name, seen, b"1", None))).done
    assert (await world.take(Swap(world.name, await world.take(Look(world.name)), b"-1", None))).done
    assert (await world.take(Swap(world.name, await world.take(Look(world.name)), b"-2", None))).done
    assert await world.raw() == b"-2"


async def test_a_drop_removes_and_tells_what_was_there(world: World):
    assert not (await world.take(Drop(world.name))).done
    await world.take(Put(world.name, b"a", 60.0))
    assert await world.take(Drop(world.name)) == Answer(True)
    await world.take(Put(world.name, stub("token", 5.0, b"old").bytes(), 60.0))
    assert await world.take(Drop(world.name)) == Answer(True)
    await world.take(Add(world.name, stub("token", 5.0, None).bytes(), 60.0))
    assert await world.take(Drop(world.name)) == Answer(True, b"\xc0")
    assert await world.raw() is None


async def test_a_drop_may_be_of_one_state_only(world: World):
    await world.take(Put(world.name, b"a", 60.0))
    seen = await world.take(Look(world.name))
    await world.take(Put(world.name, b"a", 60.0))
    assert not (await world.take(Drop(world.name, seen))).done
    assert (await world.take(Drop(world.name, await world.take(Look(world.name))))).done
    assert await world.raw() is None


async def test_a_record_that_is_known_is_not_sent_again(world: World):
    await world.take(Put(world.name, b"a", 60.0))
    known, trips = await world.take(Look(world.name)), world.way.trips
    assert await world.take(Look(world.name, known)) is known
    assert world.way.trips == trips + 1
    await world.take(Put(world.name, b"b", 60.0))
    assert (await world.take(Look(world.name, known))).raw == b"b"
    assert world.way.trips == trips + 4, "what was changed is read"
    await world.take(Drop(world.name))
    assert not (await world.take(Look(world.name, known))).done


async def test_steps_go_together_and_in_their_order(world: World):
    answers = await world.steps.run(
        Put(world.name, b"1", 60.0), Look(world.name), Drop(world.name), Add(world.name, b"2", 60.0), Look(world.name)
    )
    assert [answer.done for answer in answers] == [True] * 5
    assert [answers[at].raw for at in (1, 3, 4)] == [b"1", b"2", b"2"]
    assert world.way.trips == 1
    assert await world.steps.run() == []
    assert world.way.trips == 1


# Lives


async def test_a_short_life_ends(world: World):
    await world.steps.run(Put(world.name, b"a", 0.01), Put(f"{world.name}:long", b"b", 1e9))
    assert (await world.take(Look(f"{world.name}:long"))).done, "it is not taken for a date"

    connection = Connection(*world.way._addresses[0])
    eventually(lambda: connection.call([dialect.get(world.name)])[0].code == "EN", "it is gone")
    connection.close()


async def test_the_time_is_that_of_the_server(world: World, memcached: MemcachedServer):
    before = int(memcached.stats()["time"])
    told = await world.steps.time()
    assert before <= told <= int(memcached.stats()["time"])
    assert world.steps.coarse == COARSE


async def test_numbers_of_another_life_are_worth_nothing(own: World, own_memcached: MemcachedServer):
    """The server that was restarted has given the very number again."""
    await own.take(Put(own.name, b"old", 60.0))
    seen = await own.take(Look(own.name))
    restarted(own_memcached)
    assert not (await own.take(Swap(own.name, seen, b"stale", 60.0))).done
    assert not (await own.take(Swap(own.name, seen, b"stale", 60.0))).done
    assert not (await own.take(Drop(own.name, seen))).done
    assert (await own.take(Look(own.name, seen))).raw == b"new"
    now = await own.take(Look(own.name))
    assert now.number.value == seen.number.value
    assert (await own.take(Swap(own.name, now, b"newer", 60.0))).done


async def test_if_they_were_believed_old_values_would_come_back(own: World, own_memcached: MemcachedServer):
    own.way.forgets_lives = True
    await own.take(Put(own.name, b"old", 60.0))
    seen = await own.take(Look(own.name))
    restarted(own_memcached)
    await own.take(Look(own.name))
    assert (await own.take(Swap(own.name, seen, b"stale", 60.0))).done


def restarted(server: MemcachedServer) -> None:
    """Restart a server, and store a record there as the first."""
    server.kill()
    started = server.start()
    connection = Connection(started.host, started.port)
    connection.call([dialect.store("t:1", b"new", 60.0, 0)])
    connection.close()


# Several servers


async def test_what_fails_at_one_server_fails_alone():
    with memcached_server() as one, memcached_server() as another:
        steps, way = registers(one, another)
        names = [f"t:{number}" for number in range(20)]
        assert all(answer.done for answer in await steps.run(*[Put(name, b"a", 60.0) for name in names]))
        assert way.trips == 1
        shares = [int(server.stats()["curr_items"]) for server in (one, another)]
        assert sum(shares) == 20
        assert min(shares) > 0
        another.kill()
        answers = await steps.run(*[Look(name) for name in names])
        failed = [isinstance(answer.error, BackendUnavailableError) for answer in answers]
        assert [failed.count(False), failed.count(True)] == shares
        assert [answer.raw == b"a" for answer in answers] == [not each for each in failed]
        await steps.close()


# What the engine refuses


async def test_what_is_too_large_is_an_error_of_ours_and_nothing_else_fails(world: World):
    await world.take(Put(world.name, b"old", 60.0))
    other = f"{world.name}:other"
    refused, stored = await world.steps.run(Put(world.name, bytes(2 << 20), 60.0), Put(other, b"b", 60.0))
    assert type(refused.error) is BackendError
    assert refused.error.ambiguous, "the older record is gone"
    for part in (world.name, "larger than the server takes", "-I"):
        assert part in str(refused.error)
    assert stored.done
    assert await world.raw() is None
    added, looked = await world.steps.run(Add(world.name, bytes(2 << 20), 60.0), Look(other))
    assert added.error is not None
    assert looked.raw == b"b"


async def test_a_server_that_takes_more_gets_more():
    with memcached_server("-I", "8m") as server:
        steps, _ = registers(server)
        large = bytes(range(256)) * 16_384
        (stored, looked) = await steps.run(Put("t:1", large, 60.0), Look("t:1"))
        assert stored.done
        assert looked.raw == large
        await steps.close()


async def test_a_full_server_says_so():
    with memcached_server("-m", "4", "-M") as server:
        steps, _ = registers(server)
        answers = await steps.run(*[Put(f"t:{number}", bytes(500_000), 60.0) for number in range(200)])
        errors = [str(answer.error) for answer in answers if answer.error is not None]
        assert errors
        assert all("the server is full" in error for error in errors)
        await steps.close()


async def test_a_key_that_is_too_long_reaches_no_server(world: World):
    with pytest.raises(InvalidKeyError, match="at most 250"):
        await world.steps.run(Put(world.name, b"a", 60.0), Look("k" * 251))
    assert await world.raw() is None


# Injection

HOSTILE = ["\r\nflush_all\r\n", " flush_all", "\nmd t:1\n", "k 0 0 1\r\nx\r\nflush_all", "k\0", "größe", "\u2028"]


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_name_and_no_value_is_a_command(own: World, own_memcached: MemcachedServer, text: str):
    await own.take(Put(own.name, b"kept", 60.0))
    raw = text.encode()
    added, looked = await own.steps.run(Add(text, raw, 60.0), Look(text))
    assert (added.done, added.raw, looked.raw) == (True, raw, raw)
    assert (await own.take(Swap(text, looked, raw + raw, 60.0))).done
    assert (await own.take(Look(text))).raw == raw + raw
    assert (await own.take(Drop(text))).done
    assert await own.raw() == b"kept"
    stats = own_memcached.stats()
    assert (stats["cmd_flush"], stats["curr_items"]) == ("0", "1")


async def test_a_thousand_steps_come_back_in_their_order(own: World):
    names = [f"t:{number}" for number in range(1_000)]
    await own.steps.run(*[Put(name, name.encode(), 60.0) for name in names])
    answers = await own.steps.run(*[Look(name) for name in names])
    assert [answer.raw for answer in answers] == [name.encode() for name in names]
