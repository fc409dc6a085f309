"""The servers that tests run against are what they claim to be."""

import os
import signal

import pytest

from tests.servers import KINDS, Kind, ask, find_program, need_program, redis_server


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_answers_on_its_port_and_its_socket_and_is_gone_afterwards(kind: Kind) -> None:
    with redis_server(kind, "--maxmemory", "64mb") as server:
        assert ask(server.socket, "PING") == b"PONG"
        assert ask(("127.0.0.1", server.port), "PING") == b"PONG"
        assert server.info("memory")["maxmemory"] == str(64 * 1024 * 1024)
        assert server.program.path.is_absolute()
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    assert not server.directory.exists()


def test_a_killed_server_starts_again_on_the_same_addresses() -> None:
    with redis_server("valkey") as server:
        before = (server.url, server.unix_url, server.pid)
        server.kill()
        assert not server.running
        server.start()
        assert (server.url, server.unix_url) == before[:2]
        assert server.pid != before[2]


def test_a_frozen_server_answers_nothing_until_it_goes_on() -> None:
    with redis_server("valkey") as server:
        server.pause()
        with pytest.raises(TimeoutError):
            ask(server.socket, "PING", timeout=0.1)
        server.resume()
        assert ask(server.socket, "PING") == b"PONG"


def test_a_missing_program_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_program("no-such-server") is None
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="make servers"):
        need_program("no-such-server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="make servers"):
        need_program("no-such-server")
