"""What the tests of the Redis backend share: building backends, and servers that misbehave on purpose."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import hiredis

from nearcache.backends.base import Item
from nearcache.backends.redis import RedisBackend, build
from nearcache.backends.redis.names import lease_of
from nearcache.backends.registry import BackendSpec, Flavour
from nearcache.backends.renewal import Renewal
from nearcache.backends.transport.aio import AwaitingLink
from nearcache.backends.transport.stream import Stream
from tests.servers import RedisServer
from tests.tls import KEY, STRANGER

T = TypeVar("T")
PATIENCE = 10.0
KEYS = [f"k:{i}" for i in range(64)]
HELLO = b"%1\r\n+proto\r\n:3\r\n"
OK = b"+OK\r\n"


def made(url: str, flavour: Flavour, namespace: str, **options: Any) -> RedisBackend:
    """Build a backend; the pool starts with one connection unless the test says otherwise."""
    return build(BackendSpec(url, namespace, **{"pool_min": 1, **options}), flavour)


def lease(key: str, until: float, life: float = 0.9) -> Renewal:
    """Return the lease of an engine key as something to renew."""
    return Renewal(lease_of(key), life, until, time.monotonic(), "renew")


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Finish a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise AssertionError("a blocking backend suspended")


def eventually(true: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Poll until `true` returns something true; fail after some seconds."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.002)


def clients(server: RedisServer) -> set[bytes]:
    """Return the ids of this library's connections, as the server sees them."""
    lines = server.command("CLIENT", "LIST").splitlines()
    return {line.split()[0] for line in lines if b"name=nearcache" in line}


async def fill(backend: RedisBackend) -> None:
    """Store under every key its own name, so that a mixed-up reply shows."""
    await backend.set_many([Item(key, key.encode(), 600) for key in KEYS])


async def check(backend: RedisBackend, key: str) -> None:
    """Read in several ways; each answer must be the one of this key."""
    assert await backend.get(key) == key.encode()
    assert await backend.get_many([key, "absent", key]) == [key.encode(), None, key.encode()]
    assert len(await backend.remaining([key, key])) == 2


def streams_of(backend: RedisBackend) -> list[Stream]:
    """The connections of the running loop."""
    link = backend._link
    assert isinstance(link, AwaitingLink)
    home = link._homes.get(asyncio.get_running_loop())
    return home.streams if home is not None else []


async def soon(true: Any, what: str) -> None:
    """Poll until `true()` returns something true; fail after some seconds."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.002)


async def steps(count: int) -> None:
    """Let the loop turn some times."""
    for _ in range(count):
        await asyncio.sleep(0)


def run_threads(work: Callable[[int], object], count: int) -> None:
    """Run `work(number)` in threads; the first failure fails the test."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def in_child(work: Callable[[], object]) -> int:
    """Fork, run `work()` in the child, and return the child's process id; its exit code is 0 if nothing was raised."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        os.write(2, f"child: {error!r}\n".encode())
    finally:
        os._exit(code)


def reap(pid: int) -> int:
    """Wait for a child and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


Handler = Callable[[list[bytes]], bytes | None]
"""From one command to the bytes of its reply; None closes the connection."""


class FakeServer:
    """A TCP server that speaks enough RESP to be greeted, and then answers as the test says.

    `answer` gets each command after the greeting. `sending` may send the reply's bytes in its own way.
    """

    def __init__(
        self, answer: Handler, sending: Callable[[socket.socket, bytes], None] = socket.socket.sendall
    ) -> None:
        self._answer = answer
        self._sending = sending
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.accepted = 0
        self.commands: list[list[bytes]] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        """The address of this server."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def close(self) -> None:
        """End all connections and threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def hang_up(self) -> None:
        """End the connections there are."""
        for connection in self._connections.copy():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                self._connections.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        reader = hiredis.Reader()
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    if not self._reply(connection, command):
                        return

    def _reply(self, connection: socket.socket, command: list[bytes]) -> bool:
        if command[0] in (b"HELLO", b"CLIENT", b"SELECT"):
            connection.sendall(HELLO if command[0] == b"HELLO" else OK)
            return True
        if command[0] == b"INFO":
            connection.sendall(b"$0\r\n\r\n")
            return True
        if command[0] in (b"TIME", b"PEXPIRE"):
            connection.sendall(b":1\r\n" if command[0] == b"PEXPIRE" else b"*2\r\n$1\r\n1\r\n$1\r\n0\r\n")
            return True
        if command[0] == b"ZREVRANGEBYSCORE":
            connection.sendall(b"*2\r\n$6\r\n~clear\r\n$1\r\n1\r\n")
            return True
        self.commands.append(command)
        answer = self._answer(command)
        if answer is not None:
            self._sending(connection, answer)
        return answer is not None


@contextlib.contextmanager
def fake_server(
    answer: Handler, sending: Callable[[socket.socket, bytes], None] = socket.socket.sendall
) -> Iterator[FakeServer]:
    """Run a fake server for the `with` block."""
    server = FakeServer(answer, sending)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def tls_in_front_of(path: Path) -> Iterator[int]:
    """Serve the unix socket at `path` through TLS on the TCP port of the `with` block."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(STRANGER, KEY)
    listener = socket.create_server(("127.0.0.1", 0))
    threads = [threading.Thread(target=_accept_tls, args=(listener, context, path), daemon=True)]
    threads[0].start()
    yield listener.getsockname()[1]
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    threads[0].join(PATIENCE)


def _accept_tls(listener: socket.socket, context: ssl.SSLContext, path: Path) -> None:
    ended: list[threading.Thread] = []
    with contextlib.suppress(OSError):
        while True:
            plain, _ = listener.accept()
            ended.append(threading.Thread(target=_forward, args=(plain, context, path), daemon=True))
            ended[-1].start()
    for thread in ended:
        thread.join(PATIENCE)


def _forward(plain: socket.socket, context: ssl.SSLContext, path: Path) -> None:
    """Carry one request and its replies at a time, as a client that waits for its replies needs."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as server, plain:
        server.connect(str(path))
        with context.wrap_socket(plain, server_side=True) as client:
            while data := client.recv(65536):
                server.sendall(data)
                time.sleep(0.01)
                client.sendall(server.recv(1_000_000))


def bulk(value: bytes) -> bytes:
    """The reply that is this value."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def dripping(connection: socket.socket, data: bytes) -> None:
    """Send a byte at a time, each well within any timeout of a single receive."""
    for place in range(len(data)):
        connection.sendall(data[place : place + 1])
        time.sleep(0.02)
