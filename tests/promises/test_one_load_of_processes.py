"""However many processes ask for an absent key, it is loaded once; a leader that dies or hangs is replaced."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nearcache.backends.embedded.settings import parse
from nearcache.backends.embedded.share import Lease
from nearcache.backends.redis.leases import LEASE_LIFE
from tests.promises.conftest import url_of
from tests.promises.fleet import Answer, Fleet, in_time
from tests.promises.helpers import eventually, noticed, noticed_within
from tests.servers import RedisServer

pytestmark = pytest.mark.alone

PROCESSES = 8
LOOSE = 1.0
"""Seconds that somebody may be late, on a busy machine."""


def fleet_on(engine: str, request: pytest.FixtureRequest, without: str = "") -> Fleet:
    """Return a fleet on an engine that is there for the whole run."""
    url = url_of(engine, request)
    if engine != "embedded":
        server: RedisServer = request.getfixturevalue(f"{engine}_server")
        return Fleet(url, server.socket, without)
    lease = Lease(parse(url), timeout=5.0)
    try:
        return Fleet(url, Path(lease.address().removeprefix("unix://")), without)
    finally:
        lease.release()


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Processes that live as long as nobody kills them."""
    with fleet_on("valkey", request) as fleet:
        yield fleet


# One load


def all_get_one_load(fleet: Fleet, processes: int = PROCESSES) -> None:
    """Let 25 threads and 25 tasks in each process ask for a cold key; the load ends when all of them wait."""
    key, source = fleet.key(), fleet.source
    readings = [member.read(key, threads=25, tasks=25) for member in fleet.crew(processes)]
    for reading in readings:
        reading.waits()
    fleet.wait(key, processes - 1)
    assert len(source.begun(key)) == 1, "loaded more than once"
    source.open(key, 1, f"value of {key}")
    for reading in readings:
        assert reading.answer().got == {f"value of {key}": 50}
    assert len(source.begun(key)) == 1, "loaded more than once"


@pytest.mark.parametrize("processes", [3, pytest.param(PROCESSES, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ["redis", "embedded"])
def test_many_processes_load_once_on_every_engine(request: pytest.FixtureRequest, engine: str, processes: int) -> None:
    with fleet_on(engine, request) as fleet:
        for _ in range(3):
            all_get_one_load(fleet, processes)


def test_many_processes_load_once(fleet: Fleet) -> None:
    for _ in range(10):
        all_get_one_load(fleet)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_many_processes_load_once_a_hundred_times(fleet: Fleet) -> None:
    for _ in range(100):
        all_get_one_load(fleet)


def test_loads_without_leases_are_noticed(request: pytest.FixtureRequest) -> None:
    with fleet_on("valkey", request, without="leases") as fleet, noticed("loaded more than once|somebody waits longer"):
        all_get_one_load(fleet, processes=2)


# Messages


def waiters_are_woken(fleet: Fleet, patience: float = 20.0) -> float:
    """Let one process load and another wait; return by how much its readers got the value too late."""
    key, source = fleet.key(), fleet.source
    leader, other = fleet.crew(2)
    leading = leader.read(key, threads=1)
    fleet.leads(key, leader)
    waiting = other.read(key, threads=3, tasks=3)
    fleet.wait(key, 1)
    source.open(key, 1, "loaded")
    assert leading.answer().got == {"loaded": 1}
    answer = waiting.answer(patience)
    assert answer.got == {"loaded": 6}
    assert len(source.begun(key)) == 1
    return answer.last - (source.answered(key)[0] + LOOSE)


def test_who_waits_elsewhere_is_woken_by_a_message(fleet: Fleet) -> None:
    in_time(10, lambda: waiters_are_woken(fleet))


def test_waiters_that_hear_nothing_are_noticed(request: pytest.FixtureRequest) -> None:
    """On a busy machine the leader may be heard so late that those who wait have looked by themselves."""
    with fleet_on("valkey", request, without="messages") as fleet:
        noticed_within(5, lambda: waiters_are_woken(fleet, patience=LOOSE), "somebody waits longer")


# Loads that fail


def failures_are_told(fleet: Fleet) -> float:
    """Let a load fail for which others wait, and ask again; return by how much they were told too late."""
    key, source = fleet.key(), fleet.source
    leader, other = fleet.crew(2)
    leading = leader.read(key, threads=3, tasks=3)
    leading.waits()
    fleet.leads(key, leader)
    waiting = other.read(key, threads=3, tasks=3)
    waiting.waits()
    fleet.wait(key, 1)
    source.open(key, 1, "!no")
    answer = waiting.answer()
    assert set(leading.answer().got) == {"ConnectionRefusedError: !no"}
    assert answer.got == {
        f"LoadFailedError: the load of {key!r} failed in another process with ConnectionRefusedError": 6
    }
    source.open(key, 2, "the second try")
    assert other.read(key, threads=1).answer().got == {"the second try": 1}
    assert source.begun(key) == [leader.pid, other.pid]
    return answer.last - (source.answered(key)[0] + LOOSE)


def test_who_waits_elsewhere_is_told_why_a_load_failed_and_the_next_one_tries_again(fleet: Fleet) -> None:
    in_time(5, lambda: failures_are_told(fleet))


# Leaders that are killed


def killed_leaders_are_replaced(fleet: Fleet, loads: int = 2, patience: float = 20.0) -> float:
    """Kill the leaders of so many loads, each a process of its own; return by how much the others waited too long."""
    source, (*leaders, one, two) = fleet.source, fleet.crew(loads + 2)
    keys = [fleet.key() for _ in leaders]
    for key, leader in zip(keys, leaders, strict=True):
        leader.read(key, threads=1)
        fleet.leads(key, leader)
    waiting = [member.read(key, threads=3, tasks=3) for key in keys for member in (one, two)]
    for key in keys:
        fleet.wait(key, 2)
        source.open(key, 2, f"value of {key}")
    for leader in leaders:
        leader.kill()
    killed = time.monotonic()
    answers = [reading.answer(patience) for reading in waiting]
    assert [answer.got for answer in answers] == [{f"value of {key}": 6} for key in keys for _ in (one, two)]
    for key, leader in zip(keys, leaders, strict=True):
        first, second = source.begun(key)
        assert first == leader.pid
        assert second in (one.pid, two.pid)
    return max(answer.last for answer in answers) - (killed + LEASE_LIFE + LOOSE)


def test_leaders_that_are_killed_are_replaced_when_their_leases_end(fleet: Fleet) -> None:
    """The load that replaces theirs takes no time."""
    in_time(1, lambda: killed_leaders_are_replaced(fleet))


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_leaders_that_are_killed_are_replaced_ten_times(fleet: Fleet) -> None:
    in_time(10, lambda: killed_leaders_are_replaced(fleet))


@pytest.mark.slow
def test_leases_that_do_not_end_are_noticed(request: pytest.FixtureRequest) -> None:
    with fleet_on("valkey", request, without="the end of leases") as fleet, noticed("somebody waits longer"):
        killed_leaders_are_replaced(fleet, loads=1, patience=LEASE_LIFE + LOOSE)


# Loads that take long


def long_loads_are_waited_for(fleet: Fleet, seconds: float = 8.0) -> None:
    """Let a load go on for much longer than a lease; look at the lease all the time."""
    key, source = fleet.key(), fleet.source
    readings = [member.read(key, threads=3, tasks=3) for member in fleet.crew(3)]
    fleet.wait(key, 2)
    least, ends = LEASE_LIFE * 1000, time.monotonic() + seconds
    while time.monotonic() < ends:
        least = min(least, source.lease_left(key))
        assert len(source.begun(key)) == 1, "loaded more than once"
        time.sleep(0.02)
    source.open(key, 1, "loaded")
    assert [reading.answer().got for reading in readings] == [{"loaded": 6}] * 3
    assert len(source.begun(key)) == 1, "loaded more than once"
    assert least > 1500


@pytest.mark.slow
def test_loads_longer_than_a_lease_are_waited_for(fleet: Fleet) -> None:
    long_loads_are_waited_for(fleet)


@pytest.mark.slow
def test_leases_that_are_not_renewed_are_noticed(request: pytest.FixtureRequest) -> None:
    with fleet_on("valkey", request, without="renewals") as fleet, noticed("loaded more than once"):
        long_loads_are_waited_for(fleet)


# Loads that hang


def hung_loads_are_left(fleet: Fleet) -> float:
    """Let blocking loads hang, one with readers elsewhere and one without; return by how much somebody was late."""
    bound, source = 2.0, fleet.source  # longer than the time between two renewals
    (here, one, two), keys = fleet.crew(3), (fleet.key(), fleet.key())
    for key in keys:
        here.read(key, threads=1, hard_timeout=bound)
        fleet.leads(key, here)
        source.open(key, 2, "loaded")
    followers = [here.read(key, threads=2, tasks=2, hard_timeout=bound) for key in keys]
    elsewhere = [member.read(keys[0], threads=2, tasks=2, hard_timeout=bound) for member in (one, two)]
    answers = [reading.answer() for reading in (*elsewhere, *followers)]
    assert [answer.got for answer in answers[:2]] == [{"loaded": 4}] * 2
    assert all(gave_up(answer) for answer in answers[2:])
    assert here.read(keys[1], threads=1, hard_timeout=bound).answer().got == {"loaded": 1}
    assert source.begun(keys[0]) in ([here.pid, one.pid], [here.pid, two.pid])
    assert source.begun(keys[1]) == [here.pid, here.pid]
    for key in keys:
        source.open(key, 1, "too late")
    return max(answer.last - answer.asked for answer in answers) - (bound + min(bound, LEASE_LIFE) + LOOSE)


def gave_up(answer: Answer) -> bool:
    """Whether all readers were told that the load takes too long."""
    return all(what.startswith("LoaderTimeoutError: ") for what in answer.got)


def test_blocking_loads_that_hang_are_left_at_their_deadline(fleet: Fleet) -> None:
    in_time(1, lambda: hung_loads_are_left(fleet))


@pytest.mark.slow
def test_leases_that_outlive_the_deadline_of_their_load_are_noticed(request: pytest.FixtureRequest) -> None:
    with fleet_on("valkey", request, without="deadlines") as fleet, noticed("s late"):
        in_time(1, lambda: hung_loads_are_left(fleet))


# Leaders that are stopped


def late_loads_are_refused(fleet: Fleet, hard_timeout: float) -> None:
    """Stop a leader until its lease has ended and another process has loaded; what it brings then is not stored."""
    key, source = fleet.key(), fleet.source
    leader, other, third = fleet.crew(3)
    leading = leader.read(key, threads=1, hard_timeout=hard_timeout)
    fleet.leads(key, leader)
    leader.stop()
    try:
        eventually(lambda: source.lease_left(key) == -2, "its lease ends")
        source.open(key, 2, "the newer value")
        assert other.read(key, threads=1, hard_timeout=hard_timeout).answer().got == {"the newer value": 1}
    finally:
        leader.go_on()
    source.open(key, 1, "the older value")
    assert leading.answer().got == {"the older value": 1}, "it may have what was loaded after it asked"
    assert b"newer" in source.stored(key), "the older value is stored"
    for member in (leader, other, third):
        assert member.read(key, threads=1, hard_timeout=hard_timeout).answer().got == {"the newer value": 1}
    assert source.begun(key) == [leader.pid, other.pid]


def test_what_a_stopped_leader_loaded_is_not_stored(fleet: Fleet) -> None:
    late_loads_are_refused(fleet, hard_timeout=2.0)


@pytest.mark.slow
def test_what_a_stopped_leader_loaded_is_not_stored_after_a_lease_of_full_length(fleet: Fleet) -> None:
    late_loads_are_refused(fleet, hard_timeout=30.0)


@pytest.mark.slow
def test_loads_stored_without_their_lease_are_noticed(request: pytest.FixtureRequest) -> None:
    with fleet_on("valkey", request, without="tokens") as fleet, noticed("the older value is stored"):
        late_loads_are_refused(fleet, hard_timeout=0.5)
