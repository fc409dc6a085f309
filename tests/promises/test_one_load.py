"""However many threads and tasks of a process ask for an absent key, it is loaded once; cancelling harms no others."""

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from nearcache import Cache
from nearcache._core.outcome import Outcome
from nearcache._io.aio import AsyncIo
from nearcache.backends.base import Ask, Grant
from nearcache.backends.memory import Ledger
from nearcache.near.flights import Flight, Flights
from tests.promises.conftest import NewCache
from tests.promises.helpers import (
    ROUNDS,
    Crowd,
    Recorder,
    SlowSource,
    at_once,
    broken,
    dice,
    eventually,
    eventually_in_loop,
    impatient,
    noticed,
    recorded,
    values,
    waiting,
)

Key = Callable[[], str]


# One load, one question to the engine


def crowd_loads_once(cache: Cache, recorder: Recorder, key: str, luck: random.Random) -> None:
    """Let a random mix of threads and tasks ask for one key, both faces of the cache over one near tier."""
    source, asked = SlowSource(), recorder.counts["get"]
    threads, loops, tasks = luck.randint(2, 6), luck.randint(0, 2), luck.randint(1, 6)
    crowd = Crowd().threads(threads, lambda: cache.get_or_load(key, source.load))
    crowd.tasks(tasks, lambda: cache.aio.get_or_load(key, source.aload), loops).start()
    everybody = threads + loops * tasks
    eventually(lambda: source.loads > 1 or waiting(cache, key) >= everybody, "all of them wait")
    source.open()
    got = values(crowd.finish())
    assert source.loads == 1
    assert recorder.counts["get"] - asked == 1
    assert got == [["a", "value"]] * everybody
    assert len(set(map(id, got))) == everybody, "two of them share a value that both may change"


def crowds_load_once(cache: Cache, fresh_key: Key, rounds: int = ROUNDS) -> None:
    """Repeat that with new keys."""
    luck = dice()
    with recorded(cache, cache.aio) as recorder:
        for _ in range(rounds):
            crowd_loads_once(cache, recorder, fresh_key(), luck)


def test_threads_and_tasks_of_several_loops_cause_one_load_and_one_read(
    url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    crowds_load_once(new_cache(url), fresh_key)


def test_a_thousand_tasks_and_two_hundred_threads_cause_one_load(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, source, key = new_cache(url), SlowSource(), fresh_key()
    crowd = Crowd().threads(200, lambda: cache.get_or_load(key, source.load))
    crowd.tasks(250, lambda: cache.aio.get_or_load(key, source.aload), loops=4).start()
    eventually(lambda: waiting(cache, key) == 1200, "all of them wait")
    source.open()
    assert values(crowd.finish()) == [["a", "value"]] * 1200
    assert source.loads == 1


def test_without_flights_the_crowd_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    def join(flights: Flights, mine: Flight, now: float) -> Flight:
        return mine

    def acquire(ledger: Ledger, ask: Ask) -> Grant:
        return Grant(leads=True)

    with broken(Flights, "join", join), broken(Ledger, "_acquire", acquire), noticed():
        crowds_load_once(new_cache("memory://"), fresh_key)


def test_sharing_one_list_among_all_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    with broken(Outcome, "copied", lambda outcome: outcome), noticed():
        crowds_load_once(new_cache("memory://"), fresh_key)


def decorated_function_loads_once(cache: Cache, user_id: str) -> None:
    """Call a decorated function and its batch form side by side."""
    source = SlowSource(lambda: "user")

    @cache.cached("users:{name}")
    def user(name: str) -> str:
        return f"{source.load()} {name}"

    crowd = Crowd().threads(3, lambda: user(user_id)).threads(3, lambda: user.many([user_id])[user_id]).start()
    eventually(lambda: source.loads > 1 or waiting(cache, user.key(user_id)) == 6, "all of them wait")
    source.open()
    assert values(crowd.finish()) == [f"user {user_id}"] * 6
    assert source.loads == 1


def test_a_decorated_function_and_its_batch_share_the_load(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    for _ in range(ROUNDS):
        decorated_function_loads_once(cache, fresh_key())


def engine_down_loads_once(cache: Cache, key: str) -> None:
    """Let a crowd ask while the engine cannot be reached."""
    source = SlowSource()
    with recorded(cache, cache.aio) as recorder:
        recorder.down()
        crowd = Crowd().threads(3, lambda: cache.get_or_load(key, source.load))
        crowd.tasks(3, lambda: cache.aio.get_or_load(key, source.aload)).start()
        eventually(lambda: source.loads > 1 or waiting(cache, key) == 6, "all of them wait")
        source.open()
        assert values(crowd.finish()) == [["a", "value"]] * 6
    assert source.loads == 1
    assert cache.get(key) is None, "what nobody could store is not kept"


def test_one_load_answers_all_while_the_engine_is_away(valkey_url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(valkey_url)
    for _ in range(ROUNDS):
        engine_down_loads_once(cache, fresh_key())


def followers_have_values_of_their_own(cache: Cache, key: str) -> None:
    """Let everybody spoil what it got; nobody else may see it, now or later."""
    source = SlowSource(lambda: {"tags": ["a"]})
    crowd = Crowd().threads(4, lambda: cache.get_or_load(key, source.load)).start()
    eventually(lambda: waiting(cache, key) == 4, "all of them wait")
    source.open()
    for value in values(crowd.finish()):
        assert value == {"tags": ["a"]}
        value["tags"].append("spoilt")
    assert cache.get(key) == {"tags": ["a"]}


def test_whoever_changes_what_it_got_changes_it_for_nobody_else(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    for _ in range(ROUNDS):
        followers_have_values_of_their_own(cache, fresh_key())


# Cancellation


async def cancelled_leader_harms_nobody(cache: Cache, key: str, luck: random.Random) -> None:
    """Cancel the leader and some followers; the others get the value of the one load."""
    source = SlowSource(lambda: 7)
    tasks = [asyncio.ensure_future(cache.aio.get_or_load(key, source.aload)) for _ in range(6)]
    thread = Crowd().threads(1, lambda: cache.get_or_load(key, source.load))
    await eventually_in_loop(lambda: source.loads and waiting(cache, key) == 6, "the tasks wait")
    thread.start()
    await eventually_in_loop(lambda: waiting(cache, key) == 7, "the thread waits too")
    doomed = [tasks[0], *luck.sample(tasks[1:], luck.randint(0, 4))]
    for task in doomed:
        task.cancel()
    await asyncio.gather(*doomed, return_exceptions=True)
    source.open()
    got = await asyncio.gather(*[task for task in tasks if task not in doomed], return_exceptions=True)
    assert got == [7] * len(got), f"a follower got {got!r}"
    assert all(task.cancelled() for task in doomed)
    await eventually_in_loop(lambda: thread.done, "the thread has its value")
    assert values(thread.finish()) == [7]
    assert (source.loads, source.cancelled) == (1, 0)


def test_a_cancelled_leader_never_cancels_its_followers(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, luck = new_cache(url), dice()
    for _ in range(ROUNDS):
        asyncio.run(cancelled_leader_harms_nobody(cache, fresh_key(), luck))


def test_a_load_that_dies_with_its_leader_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    async def lead(io: AsyncIo, flight: Flight, body: Any, loader: Any) -> None:
        await body

    def check() -> None:
        asyncio.run(cancelled_leader_harms_nobody(new_cache("memory://"), fresh_key(), dice()))

    with broken(AsyncIo, "lead", lead), impatient(), noticed():
        check()


async def last_one_to_leave_stops_the_load(cache: Cache, key: str, luck: random.Random) -> None:
    """Cancel all who wait, one after the other; the load is stopped with the last one, and not stored."""
    source = SlowSource()
    tasks = [asyncio.ensure_future(cache.aio.get_or_load(key, source.aload)) for _ in range(luck.randint(1, 4))]
    await eventually_in_loop(lambda: source.loads and waiting(cache, key) == len(tasks), "all of them wait")
    luck.shuffle(tasks)
    for task in tasks:
        await asyncio.sleep(0)
        assert source.cancelled == 0
        task.cancel()
    with suppress(asyncio.CancelledError):
        await tasks[-1]
    await eventually_in_loop(lambda: source.cancelled == 1, "the load is cancelled")
    source.open()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await cache.aio.get(key) is None
    assert await cache.aio.get_or_load(key, source.aload) == ["a", "value"]


def test_the_last_one_who_waits_takes_the_load_with_it(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache, luck = new_cache(url), dice()
    for _ in range(ROUNDS):
        asyncio.run(last_one_to_leave_stops_the_load(cache, fresh_key(), luck))


def test_a_load_that_nobody_waits_for_is_noticed(new_cache: NewCache, fresh_key: Key) -> None:
    with broken(Flight, "leave", lambda flight, waker: None), impatient(), noticed():
        asyncio.run(last_one_to_leave_stops_the_load(new_cache("memory://"), fresh_key(), dice()))


async def cancelled_at_any_turn(cache: Cache, key: str, turns: int) -> bool:
    """Cancel a lone caller after so many turns of the loop; tell whether it had ended before."""
    source = SlowSource(lambda: 7)
    source.open()
    task = asyncio.ensure_future(cache.aio.get_or_load(key, source.aload))
    for _ in range(turns):
        await asyncio.sleep(0)
    early = not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        assert await task == 7
    # Whoever asks next gets the value soon, from this loop and from another thread.
    assert await asyncio.wait_for(cache.aio.get_or_load(key, source.aload), 5.0) == 7
    assert await asyncio.to_thread(cache.get_or_load, key, source.load) == 7
    return not early


def test_a_caller_cancelled_at_any_moment_leaves_nothing_behind(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    for turns in range(200):
        if asyncio.run(cancelled_at_any_turn(cache, fresh_key(), turns)):
            assert turns > 2
            return
    raise AssertionError("the load never ended")


# Takeover


async def lead_and_go(cache: Cache, key: str, source: SlowSource) -> None:
    """Lead a load, and end the loop while others wait for it."""
    leader = asyncio.ensure_future(cache.aio.get_or_load(key, source.aload))
    await eventually_in_loop(lambda: source.loads and waiting(cache, key) == 4, "the threads follow")
    assert not leader.done()


def followers_take_over(cache: Cache, key: str) -> None:
    """Let threads follow a task whose loop is shut down."""
    dying, living = SlowSource(), SlowSource(lambda: "taken over")
    living.open()
    loop = Crowd().threads(1, lambda: asyncio.run(lead_and_go(cache, key, dying))).start()
    eventually(lambda: dying.loads, "the task leads")
    crowd = Crowd().threads(3, lambda: cache.get_or_load(key, living.load)).start()
    values(loop.finish())
    assert values(crowd.finish()) == ["taken over"] * 3
    assert (dying.loads, living.loads) == (1, 1)


def test_a_loop_that_ends_during_its_load_hands_it_over(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    cache = new_cache(url)
    for _ in range(ROUNDS):
        followers_take_over(cache, fresh_key())


def test_a_loop_that_is_closed_without_a_word_holds_nobody_up(url: str, new_cache: NewCache, fresh_key: Key) -> None:
    """As old programs do: nobody cancels the tasks of the loop."""
    cache, key, source = new_cache(url), fresh_key(), SlowSource()
    loop = asyncio.new_event_loop()
    task = loop.create_task(cache.aio.get_or_load(key, source.aload))
    loop.run_until_complete(eventually_in_loop(lambda: source.loads, "the task leads"))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    for unfinished in (task, *cast(AsyncIo, cache.aio._engine.io)._tasks):
        unfinished._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio would complain about the test
    source.open()
    assert at_once(lambda: cache.get_or_load(key, source.load)) == ["a", "value"]
    assert at_once(lambda: asyncio.run(get_or_load(cache, key, source))) == ["a", "value"]


async def get_or_load(cache: Cache, key: str, source: SlowSource) -> object:
    """Ask in a loop of its own."""
    return await cache.aio.get_or_load(key, source.aload)


def test_a_signal_handler_that_asks_for_what_its_thread_is_loading_does_not_wait(
    valkey_url: str, new_cache: NewCache, fresh_key: Key
) -> None:
    """It interrupts the read of the engine, which goes on only after the handler."""
    cache, key = new_cache(valkey_url, near=None, hard_timeout=20), fresh_key()
    answers: list[object] = []
    asked = threading.Event()

    def handler(operation: str) -> None:
        if operation == "get" and not asked.is_set():
            asked.set()
            answers.append(cache.get_or_load(key, lambda: "handler's"))

    with recorded(cache) as recorder:
        recorder.before = handler
        assert at_once(lambda: cache.get_or_load(key, lambda: "loaded")) == "loaded"
    assert answers == ["handler's"]
