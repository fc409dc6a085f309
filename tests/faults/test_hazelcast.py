"""Members of Hazelcast, alone or two together: one is killed and joins again, or is frozen for a moment."""

import asyncio
import functools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from nearcache import BackendError, BackendTimeoutError, Cache, LockNotAcquiredError
from nearcache._io.blocking import drive
from nearcache.backends.base import NotServing
from nearcache.backends.hazelcast import HazelcastBackend, library
from nearcache.backends.hazelcast.feed import Feed
from nearcache.backends.registers.base import Answer, Put
from nearcache.backends.registry import BackendSpec, build
from tests.faults.source import STALENESS, away
from tests.faults.table import seen
from tests.hazelcast import Member, members, url_of
from tests.promises.conftest import NewCache
from tests.promises.helpers import PATIENCE, Crowd, broken, dice, eventually, values

pytestmark = pytest.mark.alone

TIMEOUT = 1.0
PATIENT = 0.3
"""The same where nobody may wait for long: little enough for a source that is read instead."""
TRIPS = 3
"""Trips of a write at most, each of which may take the timeout: the time, the swap and the life."""
SLACK = 0.5
WRITERS = 4
PATIENT_ONES = 3.0
"""The same for those who hold locks: a renewal that takes so long is no loss yet."""
LONG = 5.0
"""Seconds in which a lock of 10 seconds is renewed, and others have taken over what a dead member kept."""


@pytest.fixture(scope="module", name="two")
def _two() -> Iterator[list[Member]]:
    """Two members, which tests leave as they have found them."""
    with members(2) as cluster:
        yield cluster


@pytest.fixture(scope="module", name="only")
def _only() -> Iterator[list[Member]]:
    """A member that is all there is."""
    with members() as cluster:
        yield cluster


class Writers:
    """Threads and tasks that write, each its own keys, and remember what was acknowledged."""

    def __init__(self, cache: Cache) -> None:
        self.acknowledged = dict[str, int]()
        self.slowest = 0.0
        self.over = False
        self._cache = cache

    def thread(self, number: int) -> None:
        """Write until it is over."""
        count = 0
        while not self.over:
            count += 1
            began = time.monotonic()
            key = f"writers:{number}:{count % 50}"
            try:
                self._cache.set(key, count, ttl=600)
            except BackendError:
                self.acknowledged.pop(key, None)  # nobody knows: it is invalidated
                time.sleep(0.001)
            else:
                self.acknowledged[key] = count
            self.slowest = max(self.slowest, time.monotonic() - began)

    async def task(self) -> None:
        """Do the same in an event loop."""
        count = 0
        while not self.over:
            count += 1
            began = time.monotonic()
            key = f"tasks:0:{count % 50}"
            try:
                await self._cache.aio.set(key, count, ttl=600)
            except BackendError:
                self.acknowledged.pop(key, None)
                await asyncio.sleep(0.001)
            else:
                self.acknowledged[key] = count
            self.slowest = max(self.slowest, time.monotonic() - began)

    def all_is_there(self) -> bool:
        """Whether every key holds what was acknowledged last, or what is newer; the engine has to answer for that."""
        found = self._cache.get_many(list(self.acknowledged))
        return all(found.get(key, 0) >= count for key, count in self.acknowledged.items())


def written(cache: Cache, fault: Callable[[], object]) -> Writers:
    """Let many write, do something to the cluster in the middle, and wait until writes are acknowledged again."""
    writers = Writers(cache)
    crowd = Crowd()
    for number in range(WRITERS):
        crowd.threads(1, functools.partial(writers.thread, number))
    crowd.tasks(1, writers.task).start()
    try:
        eventually(lambda: len(writers.acknowledged) >= 50, "they write")
        fault()
        before = dict(writers.acknowledged)
        eventually(
            lambda: sum(before.get(key) != count for key, count in writers.acknowledged.items()) > 50,
            "they write again",
        )
    finally:
        writers.over = True
    values(crowd.finish())
    return writers


def whole(cluster: list[Member]) -> bool:
    """Whether every member is there, and keeps what it should."""
    return all(member.safe(len(cluster)) for member in cluster)


def test_a_member_that_is_killed_under_writes_takes_nothing_that_was_acknowledged(
    two: list[Member], new_cache: NewCache
) -> None:
    """The older one is killed, which leads the cluster."""
    eventually(lambda: whole(two), "they are two")
    cache = new_cache(url_of(*two), near=None, timeout=TIMEOUT, pool_timeout=TIMEOUT)
    stories = list[Writers]()
    for fault in (two[0].kill, two[0].start):
        writers = written(cache, fault)
        assert writers.slowest < TRIPS * (TIMEOUT + SLACK), "the client itself would wait for 5 seconds"
        eventually(writers.all_is_there, "what was acknowledged is found")
        stories.append(writers)
    eventually(lambda: whole(two), "they are two again")
    eventually(stories[-1].all_is_there, "what was acknowledged is found when its keeper has changed")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_member_that_is_killed_takes_no_lock_along(two: list[Member], new_cache: NewCache) -> None:
    """Its holder has it all the while, and nobody else; tokens grow. Some of the locks are kept by either member."""
    eventually(lambda: whole(two), "they are two")
    one = new_cache(url_of(*two), timeout=PATIENT_ONES)
    other = new_cache(url_of(*two), timeout=PATIENT_ONES, namespace=one._parts.core.options.namespace)
    names = [f"payment:{number}" for number in range(4)]
    for fault in (two[0].kill, two[0].start):
        with ExitStack() as stack:
            held = {name: stack.enter_context(one.lock(name, ttl=10)) for name in names}
            tokens = {name: each.token for name, each in held.items()}
            fault()
            ends = time.monotonic() + LONG
            while time.monotonic() < ends:
                for name, each in held.items():
                    each.check()
                    with pytest.raises((BackendError, LockNotAcquiredError)), other.lock(name, wait=0.05):
                        pass
        for name, token in tokens.items():
            assert taken(other, name) > token
    eventually(lambda: whole(two), "they are two again")


def taken(cache: Cache, name: str) -> int:
    """Take a lock as soon as the members give it; return its token."""
    tokens = list[int]()

    def take() -> bool:
        with suppress(BackendError, LockNotAcquiredError), cache.lock(name, ttl=10, wait=1) as held:
            tokens.append(held.token)
        return bool(tokens)

    eventually(take, "somebody gets the lock")
    return tokens[0]


def unconfirmed(two: list[Member], **changed: object) -> list[Answer]:
    """Store records while one of the members is frozen, so that none of them is kept twice; return what came of it."""
    eventually(lambda: whole(two), "they are two")
    real = library._options
    with broken(library, "_options", lambda place: {**real(place), **changed}):
        backend = build(BackendSpec(url_of(*two), "unconfirmed", timeout=TIMEOUT), "sync")
        drive(backend.open())
        two[1].pause()
        try:
            assert isinstance(backend, HazelcastBackend)
            return drive(backend.run(*[Put(f"unconfirmed:{number}", b"a", 60.0) for number in range(20)]))
        finally:
            two[1].resume()
            drive(backend.close())


def test_what_is_not_kept_twice_is_not_acknowledged(two: list[Member]) -> None:
    began = time.monotonic()
    answers = unconfirmed(two)
    assert all(isinstance(answer.error, BackendTimeoutError) and answer.error.ambiguous for answer in answers)
    answers = unconfirmed(two, operation_backup_timeout=0.2)
    errors = [answer.error for answer in answers if answer.error is not None]
    assert len(errors) == len(answers)
    assert {type(error) for error in errors} == {BackendTimeoutError, NotServing}, (
        "one's owner is frozen, or its backup"
    )
    assert all(error.ambiguous for error in errors)
    assert time.monotonic() - began < PATIENCE


def test_the_client_by_itself_would_acknowledge_it(two: list[Member]) -> None:
    with broken(Feed, "key", lambda *_: None):  # all are announced in one ring, which may be the frozen member's
        answers = unconfirmed(two, operation_backup_timeout=0.2, fail_on_indeterminate_operation_state=False)
    assert any(answer.done for answer in answers)


@pytest.mark.parametrize("place", ["the only Hazelcast member", "a Hazelcast member of two"])
@pytest.mark.parametrize("fault", ["is killed and started again", "is frozen for a moment"])
def test_readers_get_the_source_while_a_member_is_away(
    request: pytest.FixtureRequest, new_cache: NewCache, fault: str, place: str
) -> None:
    cluster: list[Member] = request.getfixturevalue("two" if "two" in place else "only")
    eventually(lambda: whole(cluster), "they are there")
    with seen(f"{place} {fault}, under load") as callers:
        options = {"namespace": f"f{uuid.uuid4().hex[:10]}", "staleness": STALENESS, "timeout": PATIENT}
        caches = [new_cache(url_of(*cluster), near=near, **options) for near in ("1MB", None)]
        away(cluster[0], caches, fault, callers, dice())
        assert callers.read_errors == callers.wrong == 0, callers.errors
