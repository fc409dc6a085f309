"""Processes of an embedded server are killed at bad moments; the next one gets a working server all the same."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nearcache.backends.embedded import locks, process, share
from nearcache.errors import BackendTimeoutError, BackendUnavailableError
from tests.embedded_world import Child, World, kill_itself_at, kill_server, server_at, socket_of
from tests.servers import ask

pytestmark = pytest.mark.alone

MOMENTS = [
    "before:Share._find",
    "after:Share._find",  # the lock for changes is held
    "before:process.start",  # the server's lock is held
    "before:process._launch",  # the server's address is written down
    "after:process._launch",  # the server runs and is not ready
    "after:process.start",
    "before:process.greet",
    "after:process.greet",
]


def deadly(moment: str, do: Callable[[], str]) -> Callable[[], str]:
    """Do something in a child and be killed at a moment of it."""

    def doing() -> str:
        kill_itself_at(moment)
        return do()

    return doing


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_starter_killed_on_its_way_leaves_a_working_server_or_none(world: World, moment: str) -> None:
    lease = world.lease()
    unlucky = Child(deadly(moment, lease.address))
    assert unlucky.said() == ""
    unlucky.end()
    address = lease.address()
    other = Child(lease.address)
    assert other.said() == address
    other.end()
    assert world.sockets() == [socket_of(address)]
    lease.release()
    world.wait_until_gone()


@pytest.mark.parametrize("moment", ["before:process.stop", "after:process.stop", "after:Share._stop_if_last"])
def test_a_process_killed_while_it_stops_the_server_leaves_a_working_one_or_none(world: World, moment: str) -> None:
    lease = world.lease()

    def use_and_leave() -> str:
        before = lease.address()
        kill_itself_at(moment)
        lease.release()
        return before

    unlucky = Child(use_and_leave)
    assert unlucky.said() == ""
    unlucky.end()
    address = lease.address()
    assert world.sockets() == [socket_of(address)]
    lease.release()
    world.wait_until_gone()


@pytest.mark.parametrize("milliseconds", range(0, 120, 4))
def test_a_starter_killed_at_any_time_spoils_nothing(world: World, milliseconds: int) -> None:
    lease = world.lease()
    unlucky = Child(lease.address)
    deadline = time.monotonic() + milliseconds / 1000
    while time.monotonic() < deadline:
        pass
    unlucky.end()
    address = lease.address()
    assert world.sockets() == [socket_of(address)]
    lease.release()
    world.wait_until_gone()


def test_a_killed_user_leaves_the_server_to_the_others_and_to_the_next(world: World) -> None:
    first, second = world.worker(), world.worker()
    address = first.join()
    second.join()
    first.kill()
    assert second.join() == address
    second.kill()
    third = world.worker()
    assert third.join() == address
    third.leave()
    world.wait_until_gone()


def test_a_killed_server_is_started_again_by_the_next_to_ask(world: World) -> None:
    lease, worker = world.lease(), world.worker()
    before = worker.join()
    kill_server(lease.address())
    after = socket_of(lease.address())
    assert after != before
    assert worker.join() == after
    assert world.sockets() == [after]
    assert not before.exists()


def test_a_killed_server_keeps_what_it_had_acknowledged_in_its_directory(world: World) -> None:
    lease = world.lease(world.data())
    first = socket_of(lease.address())
    for number in range(500):
        ask(first, "SET", f"app:users:{number}", number)
    kill_server(first)
    assert ask(socket_of(lease.address()), "DBSIZE") == 500


def test_a_server_killed_again_and_again_is_started_each_time_by_many_at_once(world: World) -> None:
    workers = [world.worker() for _ in range(4)]
    for _ in range(10):
        for worker in workers:
            worker.send("join")
        found = {worker.process.stdout.readline().strip() for worker in workers if worker.process.stdout}
        assert len(found) == 1
        kill_server(found.pop())


def test_a_frozen_server_is_reported_and_used_again_when_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "START_WITHIN", 0.2)
    starter = world.worker()
    address = starter.join()
    server = server_at(address)
    lease = world.lease()
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises(BackendTimeoutError, match="no answer in time") as error:
            lease.address()
    finally:
        os.kill(server, signal.SIGCONT)
    assert not error.value.ambiguous
    assert socket_of(lease.address()) == address


def test_after_the_first_success_asking_costs_at_most_the_timeout(world: World) -> None:
    lease = world.lease(timeout=0.2)
    server = server_at(lease.address())
    os.kill(server, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(BackendTimeoutError):
            lease.address()
    finally:
        os.kill(server, signal.SIGCONT)
    assert time.monotonic() - began < 1.0


def test_closing_while_the_server_is_frozen_ends_it_once_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "STOP_WITHIN", 0.1)
    lease = world.lease()
    server = server_at(lease.address())
    os.kill(server, signal.SIGSTOP)
    lease.release()
    os.kill(server, signal.SIGCONT)
    world.wait_until_gone()


def test_a_process_that_blocks_the_lock_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "START_WITHIN", 0.1)
    world.place().prepare()
    with locks.exclusive(world.place().change, time.monotonic() + 1):
        with pytest.raises(BackendTimeoutError, match="another process") as error:
            world.lease().address()
        assert not error.value.ambiguous


def test_a_server_that_cannot_run_is_reported_with_what_it_said(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\necho '*** FATAL CONFIG FILE ERROR ***' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(process, "find", lambda: program)
    with pytest.raises(BackendUnavailableError, match="FATAL CONFIG FILE ERROR") as error:
        world.lease().address()
    assert not error.value.ambiguous
    assert not world.living()


def test_a_server_that_ends_at_once_is_not_started_for_ever(world: World) -> None:
    appended = world.folder / "data" / "appendonlydir"
    appended.mkdir(parents=True, mode=0o700)
    (world.folder / "data").chmod(0o700)
    (appended / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(BackendUnavailableError, match=r"ends as soon as it is started; the end of .*server.log is: .+"):
        world.lease(world.data()).address()
    assert not world.living(world.data())


def test_a_program_that_cannot_be_executed_is_reported(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "find", lambda: tmp_path / "nowhere")
    with pytest.raises(BackendUnavailableError, match="could not run"):
        world.lease().address()
