"""Caches over a Hazelcast cluster that is not there, does not let them in, freezes, or forgets what it was told."""

import asyncio
import functools
import gc
import importlib
import math
import queue
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import pytest

from nearcache import AsyncCache, Cache, ConfigError, Queued
from nearcache._checkup import Check, examine
from nearcache._core.events import Command, EngineBack, Event
from nearcache._io.blocking import drive
from nearcache._io.port import Flavour
from nearcache.backends.hazelcast import blocking
from nearcache.backends.hazelcast.aio import AT_ONCE, AwaitingMaps
from nearcache.backends.hazelcast.blocking import BlockingMaps
from nearcache.backends.hazelcast.connect import Cluster
from nearcache.backends.hazelcast.library import Opened, errors
from nearcache.backends.hazelcast.maps import Place
from nearcache.backends.registers.base import Look
from nearcache.cli.doctor import held
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError
from tests.faces import Awaited
from tests.hazelcast import Member, SampleMember, members
from tests.promises.helpers import broken, eventually, impatient, noticed
from tests.servers import free_port

NewFace = Callable[..., Awaited]
SLACK = 0.5
"""Seconds that a busy machine may add to a budget."""


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Both flavours; what blocks may be awaited too."""
    chosen: Flavour = request.param
    return chosen


@pytest.fixture
async def new_face(flavour: Flavour) -> AsyncIterator[NewFace]:
    """Make caches over a URL."""
    made = list[Awaited]()

    def new(url: str, **options: Any) -> Awaited:
        kind: Any = Cache if flavour == "sync" else AsyncCache
        options = {"namespace": f"t{uuid.uuid4().hex[:10]}", "near": None, "observers": (), **options}
        made.append(Awaited(kind(url, **options)))
        return made[-1]

    yield new
    for face in made:
        await face.close()


@pytest.fixture(scope="module")
def own_member() -> Iterator[Member]:
    """A member that tests of this module may freeze, and kill if they start it again."""
    with members() as (member,):
        yield member


async def taken(face: Awaited, work: Any) -> tuple[Any, float]:
    """Return what comes of a call, and how long that took."""
    began = time.monotonic()
    try:
        got = await work
    except BackendError as error:
        got = error
    return got, time.monotonic() - began


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "hazelcast://h1:5701",
        "hazelcast://h1:5701/",
        "hazelcast://user:secret@h1:5701/dev",
        "hazelcast://h1:5701/dev?ssl=true",
        "hazelcast://h1:5701/dev/more",
        "hazelcast://h1:65536/dev",
        "hazelcast://h1,/dev",
        "hazelcast:///dev",
        "hazelcast://[::1]:5701/dev",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_its_login(url: str):
    with pytest.raises(ConfigError, match=r"url \(CACHE_URL\)") as raised:
        Cache(url).close()
    assert "secret" not in str(raised.value)


# A cluster that is not there


async def test_without_a_member_calls_end_in_time_and_say_what_to_look_at(new_face: NewFace):
    port = free_port()
    face = new_face(f"hazelcast://127.0.0.1:{port}/dev", timeout=1.0)
    error, seconds = await taken(face, face.set("users:1", 1, ttl=60))
    assert isinstance(error, BackendUnavailableError)
    assert not error.ambiguous
    for part in ("'dev'", f"127.0.0.1:{port}", "CACHE_URL"):
        assert part in str(error)
    assert seconds < 1.0 + SLACK
    assert await face.get("users:1") is None
    assert await face.get_or_load("users:2", face.loader(lambda: 2)) == 2
    assert isinstance(await face.delete("users:1"), Queued)


async def test_another_clusters_member_is_not_taken(new_face: NewFace, hazelcast: Member):
    face = new_face(f"hazelcast://{hazelcast.where}/another", timeout=2.0)
    with pytest.raises(BackendUnavailableError, match="no member lets us into the cluster 'another'"):
        await face.set("users:1", 1, ttl=60)


async def test_a_cluster_is_found_by_any_of_its_members(new_face: NewFace, hazelcast: Member):
    face = new_face(f"hazelcast://127.0.0.1:{free_port()},{hazelcast.where}/{hazelcast.cluster}", timeout=5.0)
    await face.set("users:1", 1, ttl=60)
    assert await face.get("users:1") == 1


async def test_who_does_not_speak_as_a_member_costs_no_more_than_a_call(new_face: NewFace):
    """As a member that is frozen before it greets: the client itself would wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        face = new_face(f"hazelcast://127.0.0.1:{silent.getsockname()[1]}/dev", timeout=0.3)
        error, seconds = await taken(face, face.set("users:1", 1, ttl=60))
        assert isinstance(error, BackendTimeoutError)
        assert not error.ambiguous
        assert seconds < 0.3 + SLACK
        _, seconds = await taken(face, face.close())
        assert seconds < SLACK


def clients_are_given_up() -> None:
    """Clients are opened one after the other, of a member that never greets them; each has two threads."""
    tries = 8
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster = Cluster("dev", (f"127.0.0.1:{silent.getsockname()[1]}",))
        maps = BlockingMaps(Place(cluster, ("t",), "t~b", 0.05, 0.05))
        with broken(blocking, "PATIENCE", 0.0):
            for _ in range(tries):
                with pytest.raises(BackendTimeoutError):
                    maps.opened(time.monotonic() + 0.1)
        eventually(lambda: len(reactors()) < tries, "those that were given up have ended")
        drive(maps.close())
        eventually(lambda: not reactors(), "all have ended")


def test_a_client_that_is_given_up_ends():
    clients_are_given_up()


def test_clients_that_are_left_to_themselves_are_noticed():
    with broken(blocking._Opening, "_made", lambda *_: None), impatient(), noticed():
        clients_are_given_up()
    eventually(lambda: not reactors(), "the member hung up")


# A member that goes away and comes back


async def test_what_was_queued_in_an_outage_is_done_before_anything_is_read(new_face: NewFace, own_member: Member):
    face = new_face(own_member.url, timeout=1.0)
    await face.set("users:1", "old", ttl=600)
    own_member.pause()
    try:
        queued, seconds = await taken(face, face.delete("users:1"))
        assert isinstance(queued, Queued)
        assert seconds < 2 * (1.0 + SLACK), "a trip may take a second, and this may need two"
        assert await face.get("users:1") is None
    finally:
        own_member.resume()
    deadline = time.monotonic() + 20
    while isinstance(await face.delete("users:2"), Queued):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    for _ in range(20):
        assert await face.get("users:1") is None


async def test_errors_name_what_was_asked_for_and_no_record_of_the_librarys_own(new_face: NewFace, own_member: Member):
    face = new_face(own_member.url, timeout=0.5, namespace="app", policy={"invalidate": "closed"})
    deadline = time.monotonic() + 20
    while isinstance((await taken(face, face.set("users:1", 1, ttl=600, tags=["t"])))[0], BackendError):
        assert time.monotonic() < deadline, "it is there"
    own_member.pause()
    try:
        for work, about in (
            (face.invalidate_tags("t"), "what was invalidated in the namespace 'app': "),
            (face.health(), ""),
        ):
            said, _ = await taken(face, work)
            assert about in str(said)
            assert "app~" not in str(said)
    finally:
        own_member.resume()


@pytest.mark.alone
async def test_a_member_that_does_not_answer_is_not_taken_for_one_that_does(new_face: NewFace, own_member: Member):
    """Who listens asks it as well, and says what it has heard."""
    told = list[Event]()

    class Seen:
        on = staticmethod(told.append)

    face = new_face(own_member.url, near="1MB", timeout=0.3, staleness=0.5, observers=(Seen(),))
    deadline = time.monotonic() + 20
    while not (await face.health()).coherent:
        assert time.monotonic() < deadline, "nobody listens"
        await taken(face, face.set("users:1", 1, ttl=600))
        await face.get("users:1")
        await asyncio.sleep(0.02)
    told.clear()
    own_member.pause()
    try:
        while sum(isinstance(event, Command) and event.failed for event in told) < 4:
            assert time.monotonic() < deadline, "nobody asks"
            await face.get("users:1")
            await asyncio.sleep(0.02)
        assert not [event for event in told if isinstance(event, EngineBack)]
    finally:
        own_member.resume()


async def test_a_member_that_was_restarted_is_found_again(new_face: NewFace, own_member: Member):
    face = new_face(own_member.url, timeout=2.0)
    await face.set("users:1", "a", ttl=600, tags=["team:1"])
    own_member.kill()
    assert await face.get("users:1") is None
    own_member.start()
    deadline = time.monotonic() + 20
    while True:
        stored, _ = await taken(face, face.set("users:1", "b", ttl=600, tags=["team:1"]))
        if stored is None:
            break
        assert time.monotonic() < deadline, stored
        await asyncio.sleep(0.05)
    assert await face.get("users:1") == "b"
    await face.invalidate_tags("team:1")
    assert await face.get("users:1") is None


# What is stored without a life


async def test_a_value_whose_life_was_not_told_any_more_is_not_served_beyond_it(
    new_face: NewFace, hazelcast: Member, flavour: Flavour
):
    """As when the process dies between the swap and what tells the life; the header has it too."""
    face = new_face(hazelcast.url, timeout=5.0, jitter=0)
    kind: Any = BlockingMaps if flavour == "sync" else AwaitingMaps
    real = kind.call

    async def call(maps: Any, calls: Any, until: float) -> list[Any]:
        kept = [each for each in calls if each.method != "set_ttl"]
        return list(await real(maps, kept, until)) if kept else [BackendError("lost (planned)")]

    with broken(kind, "call", call):
        assert await face.get_or_load("users:1", face.loader(lambda: 1), ttl=2) == 1
        began = time.monotonic()
        assert await face.get("users:1") == 1
    while await face.get("users:1") is not None:
        assert time.monotonic() < began + 10
        await asyncio.sleep(0.02)
    assert time.monotonic() < began + 2 + SLACK


# Many at once, and the end


@pytest.mark.slow
def test_a_thousand_threads_calls_at_once(hazelcast: Member):
    with Cache(hazelcast.url, namespace=f"t{uuid.uuid4().hex[:10]}", near=None, timeout=10.0) as cache:

        def call(number: int) -> Any:
            cache.set(f"users:{number}", number, ttl=60)
            return cache.get(f"users:{number}")

        before = threading.active_count()
        with ThreadPoolExecutor(100) as threads:
            assert list(threads.map(call, range(1_000))) == list(range(1_000))
        assert threading.active_count() == before, "one client serves all threads"


@pytest.mark.slow
async def test_a_thousand_tasks_at_once(hazelcast: Member):
    options: dict[str, Any] = {"namespace": f"t{uuid.uuid4().hex[:10]}", "near": None, "timeout": 10.0}
    async with AsyncCache(hazelcast.url, **options) as cache:

        async def call(number: int) -> Any:
            await cache.set(f"users:{number}", number, ttl=60)
            return await cache.get(f"users:{number}")

        assert await asyncio.gather(*map(call, range(1_000))) == list(range(1_000))


async def few_are_under_way(hazelcast: Member) -> None:
    """Many tasks write; the client takes the loop's time for each, so that all of them together would be late."""
    real, under_way, most = AwaitingMaps.call, 0, 0

    async def call(maps: AwaitingMaps, calls: Any, until: float) -> list[Any]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await real(maps, calls, until)
        finally:
            under_way -= 1

    options: dict[str, Any] = {"namespace": f"t{uuid.uuid4().hex[:10]}", "near": None, "observers": ()}
    async with AsyncCache(hazelcast.url, **options, timeout=10.0, pool_timeout=20.0) as cache:
        with broken(AwaitingMaps, "call", call):
            await asyncio.gather(*[cache.set(f"users:{number}", number, ttl=60) for number in range(200)])
        assert await cache.get_many([f"users:{number}" for number in range(200)]) == {
            f"users:{number}": number for number in range(200)
        }
    assert most <= AT_ONCE, "too many are under way"


async def test_few_calls_of_a_loop_are_under_way_at_the_same_time(hazelcast: Member):
    await few_are_under_way(hazelcast)


async def test_calls_that_are_all_under_way_are_noticed(hazelcast: Member):
    with broken(AwaitingMaps, "turn", BlockingMaps.turn), noticed("too many"):
        await few_are_under_way(hazelcast)


async def test_who_waits_too_long_for_others_is_told_so(hazelcast: Member):
    options: dict[str, Any] = {"namespace": "t", "near": None, "observers": ()}
    async with AsyncCache(hazelcast.url, **options, timeout=5.0, pool_timeout=0.1) as cache, AsyncExitStack() as stack:
        await cache.set("users:1", 1, ttl=60)
        maps: Any = cache._engine.backend._registers._maps  # type: ignore[attr-defined]
        for _ in range(AT_ONCE):
            await stack.enter_async_context(maps.turn())
        with pytest.raises(BackendTimeoutError, match="pool_timeout"):
            await cache.set("users:1", 2, ttl=60)
        assert cache._parts.core.outage is None


def is_coherent(cache: Cache) -> bool:
    return bool(cache.health().coherent)


def reactors() -> list[str]:
    """Return the threads of clients that this test has opened."""
    return [each.name for each in threading.enumerate() if "hazelcast" in each.name and each not in _others]


_others = set[threading.Thread]()


@pytest.fixture(autouse=True)
def _before() -> None:
    """Whoever is at work already is of another test: a client that hangs is left to itself."""
    _others.clear()
    _others.update(threading.enumerate())


@pytest.mark.parametrize("near", [None, "1MB"])
@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_a_cache_that_ends_leaves_no_thread(hazelcast: Member, end: str, near: str | None):
    cache = Cache(hazelcast.url, namespace="t", near=near, observers=())
    cache.set("users:1", 1)
    cache.get("users:1")
    if near:
        eventually(functools.partial(is_coherent, cache), "it hears of changes")
    assert reactors()
    if end == "closed":
        cache.close()
        assert not reactors()
        cache.get("users:1")  # a later call connects again
        cache.close()
        cache.close()
    del cache
    gc.collect()
    eventually(lambda: not reactors(), "its threads have ended")


def a_lock_that_an_interrupt_has_left_costs_a_client(member: Member) -> None:
    """The thread that brings all answers waits for it, for ever; whoever calls next gets another client."""
    real, left = Opened.begin, list[Any]()

    def begin(opened: Opened, call: Any) -> Any:
        while True:
            future = real(opened, call)
            future._event.condition.acquire()
            if not future.done():
                left.append(future._event.condition)
                raise KeyboardInterrupt
            future._event.condition.release()  # the answer was quicker

    cache = Cache(member.url, namespace="t", near=None, observers=(), timeout=1.0)
    try:
        cache.set("users:1", 1)
        with broken(Opened, "begin", begin), pytest.raises(KeyboardInterrupt):
            cache.get("users:1")
        assert cache.get("users:1") == 1, "it answers"
    finally:
        began = time.monotonic()
        cache.close()
        assert time.monotonic() - began < 1.0 + SLACK, "to close does not wait for a client that hangs"
        for each in left:
            each.release()
    eventually(lambda: not reactors(), "its threads have ended")


def test_an_interrupt_inside_the_client_costs_a_client(hazelcast: Member):
    a_lock_that_an_interrupt_has_left_costs_a_client(hazelcast)


def test_a_client_that_is_kept_after_an_interrupt_is_noticed(hazelcast: Member):
    with broken(BlockingMaps, "_interrupted", lambda *_: None), noticed("it answers"):
        a_lock_that_an_interrupt_has_left_costs_a_client(hazelcast)
    eventually(lambda: not reactors(), "its threads have ended")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), queue.Empty()])
def test_an_interrupt_of_which_the_client_has_made_an_error_is_raised_all_the_same(hazelcast: Member, error: Any):
    def begin(*_: object) -> Any:
        try:
            raise error
        except BaseException:
            raise errors.HazelcastSerializationError("not for users")  # noqa: B904 -- as the client does it

    with Cache(hazelcast.url, namespace="t", near=None, observers=(), timeout=5.0) as cache:
        cache.set("users:1", 1)
        with broken(Opened, "begin", begin), pytest.raises(type(error)):
            cache.get("users:1")
        try:
            raise error
        except type(error):
            broken_by_itself = errors.HazelcastSerializationError("not for users")

            def fail(*_: object) -> Any:
                raise broken_by_itself

            with broken(Opened, "begin", fail), pytest.raises(BackendError, match="HazelcastSerializationError"):
                cache.exists("users:1")


@pytest.mark.parametrize("state", ["connecting", "silent"])
async def test_a_connection_that_is_being_made_ends_with_the_cache(hazelcast: Member, state: str):
    """As when the client looks for a member that is not there any more, or not yet."""
    cache = AsyncCache(hazelcast.url, namespace="t", near=None, observers=())
    await cache.get("users:1")
    backend: Any = cache._engine.backend
    (home,) = backend._registers._maps._homes.values()
    client: Any = home._opened.client
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        address = importlib.import_module("hazelcast.core").Address(*silent.getsockname())
        made = client._connection_manager._create_connection(address)
        if state == "silent":
            await made._create_task
        await cache.aclose()
        if state == "silent":
            with silent.accept()[0] as accepted:
                accepted.settimeout(10)
                while await asyncio.to_thread(accepted.recv, 100):
                    pass
    assert not made.live
    assert made._create_task.done()


# The configuration of members


def test_the_sample_configuration_is_what_the_doctor_asks_for(hazelcast: Member):
    sample = SampleMember()
    try:
        sample.start()
        for member, wanted in ((sample, True), (hazelcast, None)):
            with Cache(member.url, namespace="app", observers=(), timeout=5.0) as cache:
                found = {check.name: check for check in examine(cache)}
                cache.set("users:1", 1, ttl=60, tags=["a"])
                cache.invalidate_tags("a")
                backend: Any = cache._engine.backend
                (head,) = drive(backend._registers.run(Look(backend._marks.name, life=True)))
            assert found["default life"].works is wanted
            assert bool(found["default life"].advice) is (wanted is None)
            assert (found["ring"].works, found["ring"].advice) == (True, "")
            assert "the last 10,000" in found["ring"].found
            assert head.left == math.inf, "marks do not end"
    finally:
        sample.remove()


def test_the_doctor_says_what_a_ring_should_be_set_to():
    member = Member()
    member.rings = {"small~b": {"capacity": 10}, "ending~b": {"time-to-live-seconds": 600}}
    try:
        member.start()
        for namespace, advice in (("small", "the capacity that"), ("ending", "time-to-live-seconds of 0"), ("app", "")):
            (ring,) = found_by_the_doctor(member, namespace)
            assert ring.works
            assert advice in ring.advice
            assert bool(advice) is bool(ring.advice)
    finally:
        member.remove()


def test_the_doctor_finds_a_ring_that_cannot_be_read(hazelcast: Member):
    real = BlockingMaps.call

    async def lost(maps: Any, calls: Any, until: float) -> list[Any]:
        return [
            BackendError("lost (planned)") if call.method == "read_many" else result
            for call, result in zip(calls, await real(maps, calls, until), strict=True)
        ]

    async def another(maps: Any, calls: Any, until: float) -> list[Any]:
        mine = [call._replace(arguments=(bytearray(b"a 1"),)) if call.method == "add" else call for call in calls]
        return list(await real(maps, mine, until))

    for call, said in (
        (lost, "lost (planned)"),
        (another, "the announcement of changes in the namespace 'unread': what was announced is not what is there"),
    ):
        with broken(BlockingMaps, "call", call):
            checks = found_by_the_doctor(hazelcast, "unread", everything=True)
        assert [(check.name, check.found) for check in checks if check.works is False] == [("ring", said)]
        assert "live for `staleness`" in held(checks)["How old a near value may be"]


def found_by_the_doctor(member: Member, namespace: str, *, everything: bool = False) -> list[Check]:
    """Return what was found out about the ring, or everything."""
    with Cache(member.url, namespace=namespace, observers=(), timeout=5.0) as cache:
        return [check for check in examine(cache) if everything or check.name == "ring"]
