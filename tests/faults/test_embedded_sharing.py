"""All processes of a user share one embedded server; the last one to close stops it."""

import os
import signal
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from nearcache.backends.embedded import place, process
from nearcache.errors import ConfigError
from tests.embedded_world import Child, World, fields, server_at, socket_of
from tests.servers import ask, need_program

pytestmark = pytest.mark.alone

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells")


def test_processes_share_one_server_and_the_last_one_to_close_stops_it(world: World) -> None:
    first, second = world.worker(), world.worker()
    address = first.join()
    assert second.join() == address
    first.leave()
    assert ask(address, "PING") == b"PONG"
    assert world.living()
    second.leave()
    world.wait_until_gone()
    assert world.sockets() == []


def test_a_program_that_ends_without_closing_counts_as_one_that_closed(world: World) -> None:
    worker = world.worker()
    worker.join()
    worker.exit()
    world.wait_until_gone()


def test_the_last_lease_of_a_process_gives_up_its_share(world: World) -> None:
    first, second = world.lease(), world.lease()
    assert first.address() == second.address()
    first.release()
    first.release()
    assert world.living()
    second.release()
    world.wait_until_gone()
    assert first.address()
    first.release()
    world.wait_until_gone()


def test_a_lease_that_was_dropped_does_not_hold_the_server(world: World) -> None:
    dropped, kept = world.lease(), world.lease()
    dropped.address()
    kept.address()
    del dropped
    kept.release()
    world.wait_until_gone()


@pytest.mark.parametrize("attempt", range(20))
def test_processes_that_start_at_once_get_one_server(world: World, attempt: int) -> None:
    together, go = os.pipe()

    def join() -> str:
        os.close(go)
        os.read(together, 1)
        return f"{server_at(lease.address())}"

    lease = world.lease()
    children = [Child(join) for _ in range(5)]
    os.close(go)
    servers = {child.said() for child in children}
    os.close(together)
    for child in children:
        child.end()
    assert len(servers) == 1
    assert len(world.sockets()) == 1
    # The children were killed: the server is there for the next one.
    assert f"{server_at(lease.address())}" in servers


def test_processes_that_come_and_go_never_lose_a_server_they_hold(world: World) -> None:
    lease = world.lease()

    def come_and_go() -> str:
        for _ in range(15):
            assert ask(socket_of(lease.address()), "PING") == b"PONG"
            assert ask(socket_of(lease.address()), "PING") == b"PONG"
            lease.release()
        return "fine"

    children = [Child(come_and_go) for _ in range(4)]
    said = [child.said() for child in children]
    for child in children:
        child.end()
    assert said == ["fine"] * 4
    world.wait_until_gone()
    assert world.sockets() == []


def test_threads_that_start_at_once_get_one_server(world: World) -> None:
    lease, found, barrier = world.lease(), set[str](), threading.Barrier(12)

    def join() -> None:
        barrier.wait()
        found.add(lease.address())

    threads = [threading.Thread(target=join) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert len(world.sockets()) == 1


def test_servers_of_different_directories_are_different(world: World) -> None:
    memory, data, other = world.lease(), world.lease(world.data()), world.lease(f"{world.data()}/2")
    assert len({memory.address(), data.address(), other.address()}) == 3
    data.release()
    world.wait_until_gone(world.data())
    assert world.living()
    assert world.living(f"{world.data()}/2")


def test_a_forked_child_has_a_share_of_its_own_once_it_uses_the_server(world: World) -> None:
    lease = world.lease()
    address = lease.address()
    child = Child(lease.address)
    assert child.said() == address
    lease.release()
    assert world.living()
    child.end()
    # The child was killed, so nobody stopped the server; the next one finds it and does.
    assert lease.address() == address
    lease.release()
    world.wait_until_gone()


def test_a_forked_child_that_does_not_use_the_server_holds_nothing(world: World) -> None:
    lease = world.lease()
    lease.address()
    child = Child(lambda: "unused")
    assert child.said() == "unused"
    lease.release()
    world.wait_until_gone()
    child.end()


def test_an_idle_child_of_a_killed_process_does_not_hold_the_server(world: World) -> None:
    lease = world.lease()

    def join_and_fork() -> str:
        lease.address()
        child = Child(lambda: "idle")
        child.said()  # until it runs, it is a copy of its parent that has let go of nothing
        return f"{child.pid}"

    parent = Child(join_and_fork)
    idle = int(parent.said())
    parent.end()
    try:
        lease.address()
        lease.release()
        world.wait_until_gone()
    finally:
        os.kill(idle, signal.SIGKILL)


def test_a_forked_child_that_closes_does_not_stop_its_parents_server(world: World) -> None:
    lease = world.lease()
    address = lease.address()

    def close() -> str:
        lease.release()
        return "closed"

    child = Child(close)
    assert child.said() == "closed"
    child.end()
    assert lease.address() == address
    assert ask(socket_of(address), "PING") == b"PONG"


def test_with_keep_the_server_stays_until_somebody_says_otherwise(world: World) -> None:
    keeping, plain, ending = (world.lease(f"embedded://{query}") for query in ("?keep=true", "", "?keep=false"))
    address = keeping.address()
    keeping.release()
    assert plain.address() == address
    plain.release()
    assert world.living()
    assert ending.address() == address
    ending.release()
    world.wait_until_gone()
    plain.address()
    plain.release()
    world.wait_until_gone()


def test_keep_can_be_asked_for_while_the_server_runs(world: World) -> None:
    plain, keeping = world.lease(), world.lease("embedded://?keep=true")
    plain.address()
    keeping.address()
    keeping.release()
    plain.release()
    assert world.living()


def test_data_outlives_the_server_if_there_is_a_directory_for_it(world: World) -> None:
    lease = world.lease(world.data())
    first = lease.address()
    ask(socket_of(first), "SET", "app:users:1", "Ada")
    lease.release()
    world.wait_until_gone(world.data())
    second = lease.address()
    assert second != first
    assert ask(socket_of(second), "GET", "app:users:1") == b"Ada"


@pytest.mark.parametrize("name", ["with space", "with'quote\"s", "größe", "--port", "%25"])
def test_a_directory_may_have_any_name(world: World, name: str) -> None:
    url = f"embedded://{world.folder}/{quote(name)}"
    lease = world.lease(url)
    ask(socket_of(lease.address()), "SET", "app:users:1", "Ada")
    assert (world.folder / name / "appendonlydir").is_dir()
    lease.release()
    world.wait_until_gone(url)


@pytest.mark.parametrize("kind", ["redis-server", "valkey-server"])
def test_any_server_program_will_do(world: World, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(process, "find", lambda: need_program(kind).path)
    lease = world.lease(world.data())
    first = socket_of(lease.address())
    ask(first, "SET", "app:users:1", "Ada")
    lease.release()
    world.wait_until_gone(world.data())
    assert ask(socket_of(lease.address()), "GET", "app:users:1") == b"Ada"


def test_data_in_memory_does_not_outlive_the_server(world: World) -> None:
    lease = world.lease()
    ask(socket_of(lease.address()), "SET", "app:users:1", "Ada")
    lease.release()
    assert ask(socket_of(lease.address()), "GET", "app:users:1") is None
    assert list(world.place().home.glob("*.rdb")) == []


def test_the_server_is_bounded_evicts_and_listens_on_no_port(world: World) -> None:
    path = socket_of(world.lease("embedded://?maxmemory=8mb").address())
    settings = {name: ask(path, "CONFIG", "GET", name)[1] for name in ("maxmemory", "maxmemory-policy", "port", "save")}
    assert settings == {"maxmemory": b"8388608", "maxmemory-policy": b"allkeys-lfu", "port": b"0", "save": b""}
    assert path.stat().st_mode & 0o777 == 0o700


@LINUX
def test_the_server_is_nobodys_child_and_knows_no_secrets(world: World) -> None:
    worker = world.worker()
    server = server_at(worker.join())
    status = fields(Path(f"/proc/{server}/status"))
    assert int(status["PPid"]) != worker.process.pid
    assert os.getsid(server) not in (os.getsid(worker.process.pid), os.getsid(0))
    assert "SECRET_OF_THE_PROGRAM" not in Path(f"/proc/{server}/environ").read_text()
    assert Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text() == ""


@LINUX
def test_joining_and_leaving_leaves_no_descriptor_open(world: World) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    lease = world.lease()
    lease.address()
    lease.release()
    before = count()
    for _ in range(3):
        lease.address()
        lease.address()
        lease.release()
    assert count() == before


def test_interrupting_the_terminal_of_the_starter_does_not_reach_the_server(world: World) -> None:
    worker = world.worker()
    address = worker.join()
    os.killpg(worker.process.pid, signal.SIGINT)
    assert worker.process.wait(20) != 0
    # It left as it ended, and was the last: only a server that the interrupt did not reach could be stopped properly.
    world.wait_until_gone()
    assert "User requested shutdown" in world.place().log.read_text()
    assert not address.exists()


def test_a_directory_of_another_user_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.place().prepare()
    monkeypatch.setattr(place, "user_id", lambda: os.geteuid() + 1)
    (world.folder / f"nearcache-{os.geteuid() + 1}").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="another user"):
        world.lease().address()
    assert world.sockets() == []


def test_deleted_files_of_a_running_server_lead_to_a_new_one(world: World) -> None:
    lease = world.lease()
    first = lease.address()
    for file in world.place().home.iterdir():
        file.unlink()
    second = lease.address()
    assert second != first
    assert lease.address() == second
    lease.release()
    world.wait_until_gone()
    assert ask(socket_of(first), "PING") == b"PONG"


def test_closing_after_the_directory_was_deleted_does_not_fail(world: World) -> None:
    lease = world.lease()
    lease.address()
    for file in world.place().home.iterdir():
        file.unlink()
    world.place().home.rmdir()
    began = time.monotonic()
    lease.release()
    assert time.monotonic() - began < 1.0
