"""A primary with replicas, and sentinels that watch it and appoint another when it dies."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.servers import Kind, RedisServer

GROUP = "mymaster"
QUORUM = 2
DOWN_AFTER = 500
"""Milliseconds without an answer after which a sentinel takes a server for dead."""

WITHIN = 30.0
HASTY = ("--repl-diskless-sync-delay", "0", "--repl-diskless-sync", "yes")


class Sentinel(RedisServer):
    """A server that watches others; it writes what it learns into its configuration."""

    def __init__(self, kind: Kind, port: int, *options: str) -> None:
        super().__init__(kind, *options)
        self._file = self.directory / "sentinel.conf"
        self._file.write_text(
            f"sentinel monitor {GROUP} 127.0.0.1 {port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {GROUP} {DOWN_AFTER}\n"
            f"sentinel failover-timeout {GROUP} 3000\n"
        )

    def _command_line(self) -> list[str]:
        program, *options = super()._command_line()
        return [program, str(self._file), "--sentinel", *options]


class Group:
    """One primary and its replicas, in the order in which they were started, and the sentinels."""

    def __init__(self, servers: list[RedisServer], sentinels: list[RedisServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """The address of the group's primary, whoever that is."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{GROUP}/0"

    def primary(self) -> RedisServer:
        """Return the server that a running sentinel takes for the primary."""
        running = next(sentinel for sentinel in self.sentinels if sentinel.running)
        _, port = running.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", GROUP)
        return next(server for server in self.servers if server.port == int(port))

    def wait_until_watched(self) -> None:
        """Wait until every sentinel knows the replicas and the other sentinels, so that a fail-over is possible."""
        replicas, others = len(self.servers) - 1, len(self.sentinels) - 1
        for sentinel in self.sentinels:
            deadline = time.monotonic() + WITHIN
            while (known := self._known(sentinel)) != (replicas, others):
                assert time.monotonic() < deadline, f"it knows {known} replicas and sentinels"
                time.sleep(0.05)

    def _known(self, sentinel: RedisServer) -> tuple[int, int]:
        words = sentinel.command("SENTINEL", "MASTER", GROUP)
        facts = dict(zip(words[::2], words[1::2], strict=True))
        return int(facts[b"num-slaves"]), int(facts[b"num-other-sentinels"])


@contextmanager
def sentinel_group(kind: Kind, replicas: int = 2) -> Iterator[Group]:
    """Run a group of its own for the `with` block."""
    with ExitStack() as stack:

        def started(server: RedisServer) -> RedisServer:
            stack.callback(server.remove)
            return server.start()

        primary = started(RedisServer(kind, *HASTY))
        followers = [
            started(RedisServer(kind, *HASTY, "--replicaof", f"127.0.0.1 {primary.port}")) for _ in range(replicas)
        ]
        group = Group([primary, *followers], [started(Sentinel(kind, primary.port)) for _ in range(3)])
        group.wait_until_watched()
        yield group


@pytest.fixture(scope="session", name="watched")
def _session_group() -> Iterator[Group]:
    """One group for the whole run; tests use namespaces of their own and never kill anything."""
    with sentinel_group("valkey", replicas=1) as group:
        yield group
