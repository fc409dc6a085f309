"""A primary with two replicas, and three sentinels that watch it, for the scene in which the primary is killed."""

import socket
import subprocess
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from nearcache.backends.embedded.program import find

NAME = "atlas"
SENTINELS = 3
REPLICAS = 2
QUORUM = 2
HASTE = {"down-after-milliseconds": 500, "failover-timeout": 3000}
"""How soon a primary is taken for dead: in production one would be more patient."""

PATIENCE = 20.0
STARTS = 3
"""How often a start is tried: another program may take the free port in between."""


_starter: Final = ThreadPoolExecutor(1)
"""Starts processes in a thread, where no signal can come between a start and what is known of it."""


def _run(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603  # ours


class Server:
    """A server's process on a free port, with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.port: int = 0
        self._folder = folder
        self._process: Future[subprocess.Popen[bytes]] | None = None

    def start(self, *options: str) -> "Server":
        """Start it, and wait until it answers."""
        for _ in range(STARTS):
            self.port = _free_port()
            command = [
                str(find()),
                *options,
                "--bind",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--dir",
                str(self._folder),
            ]
            self._process = _starter.submit(_run, command)
            if self._comes_up(self._process.result()):
                return self
            self.kill()
        raise TimeoutError(f"{find()} does not start")

    def ask(self, *words: str) -> Any:
        """Return what it answers to a command."""
        once = Retry(NoBackoff(), 0)  # by itself the client waits up to some seconds before it tries again
        client: Any = Redis(port=self.port, decode_responses=True, socket_timeout=PATIENCE, retry=once)  # partial types
        with client:
            return client.execute_command(*words)

    def kill(self) -> None:
        """End it without a chance to do anything."""
        if self._process is not None:
            process = self._process.result()
            process.kill()
            process.wait()

    def _comes_up(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it answers, and not another program that has taken the port."""
        deadline = monotonic() + PATIENCE
        while process.poll() is None and monotonic() < deadline:
            try:
                return bool(self.ask("INFO", "server")["process_id"] == process.pid)
            except RedisError:
                sleep(0.01)
        return False


class Group:
    """The servers of the group; the first one begins as the primary."""

    def __init__(self, servers: list[Server], sentinels: list[Server]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """The address of the primary, whoever that is."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}"

    def ready(self) -> bool:
        """Whether every sentinel knows all others, so that one of them can be sent to appoint another primary."""
        return all(_knows_all(sentinel.ask("SENTINEL", "MASTER", NAME)) for sentinel in self.sentinels)


@contextmanager
def group() -> Generator[Group, None, None]:
    """Have the servers until the `with` block ends; then no process and no file of theirs is left."""
    with tempfile.TemporaryDirectory(prefix="nearcache-demo-") as folder, ExitStack() as ends:

        def new(name: str) -> Server:
            (Path(folder) / name).mkdir()
            server = Server(Path(folder) / name)
            ends.callback(server.kill)
            return server

        hasty = ("--save", "", "--repl-diskless-sync-delay", "0")
        primary = new("primary").start(*hasty)
        follow = ("--replicaof", f"127.0.0.1 {primary.port}")
        replicas = [new(f"replica-{number}").start(*hasty, *follow) for number in range(REPLICAS)]
        files = [_file(Path(folder) / f"sentinel-{number}.conf", primary.port) for number in range(SENTINELS)]
        sentinels = [new(f"sentinel-{number}").start(file, "--sentinel") for number, file in enumerate(files)]
        made = Group([primary, *replicas], sentinels)
        until(made.ready, "the sentinels know one another")
        yield made


def until(true: Callable[[], object], what: str) -> float:
    """Wait until something is true, and return how many seconds that took."""
    started = monotonic()
    while not true():
        if monotonic() - started > PATIENCE:
            raise TimeoutError(f"never happened: {what}")
        sleep(0.01)
    return monotonic() - started


def _file(path: Path, port: int) -> str:
    """Write the file of a sentinel, into which it writes what it learns, and return its path."""
    settings = [
        f"monitor {NAME} 127.0.0.1 {port} {QUORUM}",
        *(f"{name} {NAME} {value}" for name, value in HASTE.items()),
    ]
    path.write_text("".join(f"sentinel {setting}\n" for setting in settings))
    return str(path)


def _knows_all(told: dict[str, Any]) -> bool:
    return int(told["num-slaves"]) == REPLICAS and int(told["num-other-sentinels"]) == SENTINELS - 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
