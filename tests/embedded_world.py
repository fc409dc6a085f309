"""A world of its own for a test of embedded servers: a folder instead of /tmp, processes, and an end to all."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hiredis
import pytest

from nearcache.backends.embedded import locks, place, process, share
from nearcache.backends.embedded.place import Place
from nearcache.backends.embedded.settings import parse
from nearcache.backends.embedded.share import Lease, Share
from tests.servers import CHECKOUT, ask, need_program

WITHIN = 20.0


class Worker:
    """A process that joins and leaves an embedded server."""

    def __init__(self, world: "World", url: str) -> None:
        command = [sys.executable, str(CHECKOUT / "tests" / "embedded_worker.py"), str(world.folder), url]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), "SECRET_OF_THE_PROGRAM": "yes"},
            start_new_session=True,
        )

    def say(self, word: str) -> str:
        """Send a line and return the answer; "" if the process died of it."""
        self.send(word)
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, word: str) -> None:
        """Send a line and do not wait for an answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def join(self) -> Path:
        """Join the server; its socket."""
        return socket_of(self.say("join"))

    def leave(self) -> None:
        """Leave the server."""
        assert self.say("leave") == "left"

    def exit(self) -> None:
        """End as programs do, without closing anything."""
        self.send("exit")
        assert self.process.wait(WITHIN) == 0

    def kill(self) -> None:
        """End without a chance to do anything."""
        self.process.kill()
        self.process.wait(WITHIN)

    def end(self) -> None:
        """Make sure that it is gone, and its pipes."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


class Child:
    """A forked child that does something, tells what came of it, and lives on until it is killed."""

    def __init__(self, do: Callable[[], str]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(do, writing)
        os.close(writing)
        self._pipe = os.fdopen(reading)

    def said(self) -> str:
        """Wait for what came of it; "" if the child died of it."""
        return self._pipe.readline().strip()

    def end(self) -> None:
        """Kill it."""
        self._pipe.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    @staticmethod
    def _live(do: Callable[[], str], writing: int) -> NoReturn:
        try:
            os.write(writing, f"{do()}\n".encode())
            signal.pause()
        finally:
            os._exit(1)


def kill_itself_at(where: str) -> None:
    """Arrange for SIGKILL at a bad moment: before or after `<module>.<function>` of the package is run."""
    moment, _, name = where.partition(":")
    module, _, function = name.partition(".")
    owner = {"process": process, "share": share, "Share": share.Share}[module]
    real = getattr(owner, function)

    def deadly(*arguments: Any) -> Any:
        if moment == "after":
            real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, function, deadly)


class World:
    """The servers and processes of one test."""

    def __init__(self) -> None:
        need_program("valkey-server")
        self.folder = Path(tempfile.mkdtemp(prefix="nc-w-", dir="/tmp"))
        self.workers: list[Worker] = []

    def lease(self, url: str = "embedded://", timeout: float = 5.0) -> Lease:
        """A lease of this process."""
        return Lease(parse(url), timeout)

    def worker(self, url: str = "embedded://") -> Worker:
        """Another process."""
        self.workers.append(Worker(self, url))
        return self.workers[-1]

    def place(self, url: str = "embedded://") -> Place:
        """Where the server of a URL keeps its files."""
        return place.place_of(parse(url).directory)

    def data(self) -> str:
        """A URL with a data directory."""
        return f"embedded://{self.folder}/data"

    def sockets(self) -> list[Path]:
        """The sockets of all servers, also of those that were killed."""
        return list(self.folder.glob("nearcache-*/*.sock"))

    def living(self, url: str = "embedded://") -> bool:
        """Whether the server of a URL lives: it holds its lock."""
        try:
            descriptor = locks.open_file(self.place(url).alive)
        except FileNotFoundError:
            return False
        try:
            return not locks.try_exclusive(descriptor)
        finally:
            locks.close(descriptor)

    def wait_until_gone(self, url: str = "embedded://") -> None:
        """Wait until the server of a URL is gone."""
        deadline = time.monotonic() + WITHIN
        while self.living(url):
            assert time.monotonic() < deadline, "the server still lives"
            time.sleep(0.005)

    def end(self) -> None:
        """End everything that was started here."""
        for worker in self.workers:
            worker.end()
        for one in self.sockets():
            with suppress(OSError, hiredis.HiredisError):
                ask(one, "SHUTDOWN", "NOSAVE")
        shutil.rmtree(self.folder, ignore_errors=True)


def socket_of(address: str) -> Path:
    """The socket in a server's address."""
    assert address.startswith("unix:///"), f"no address: {address!r}"
    return Path(address.removeprefix("unix://"))


def server_at(address: str | Path) -> int:
    """The process id of the server at an address."""
    path = address if isinstance(address, Path) else socket_of(address)
    lines = ask(path, "INFO", "server").decode().splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith("process_id:")))


def kill_server(address: str | Path) -> None:
    """Kill the server at an address."""
    os.kill(server_at(address), signal.SIGKILL)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world of its own, and no share of this process in any server."""
    made = World()
    shares: dict[Place, Share] = {}
    monkeypatch.setattr(place, "TEMPORARY", made.folder)
    monkeypatch.setattr(share, "_shares", shares)
    yield made
    for one in shares.values():
        one.leave_all()
    made.end()


def fields(path: Path) -> dict[str, Any]:
    """The fields of a file of /proc such as `status`."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}
