"""What an engine sees of sessions: no id, ever; and what sessions make of records that somebody else has written."""

import hashlib
import logging
import pickle
import socket
import uuid
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from nearcache import BackendError, Cache, SessionLostError
from nearcache.backends.redis.names import session_of, sessions_of
from nearcache.codecs import field, ids
from nearcache.codecs.codec import Codec
from nearcache.codecs.envelope import NO_SCHEMA
from nearcache.testing import faults
from tests.servers import RedisServer

GOOD = field.pack(Codec(), Codec().encode("x"))


@pytest.fixture
def namespace() -> str:
    """A namespace of its own."""
    return f"s{uuid.uuid4().hex[:10]}"


@pytest.fixture
def cache(redis_server: RedisServer, namespace: str) -> Any:
    """A cache over Redis."""
    with Cache(redis_server.unix_url, namespace=namespace, timeout=5.0) as cache:
        yield cache


def record_of(namespace: str, id: str) -> str:
    """Return the name of the record of a session, made anew from what the page says."""
    return session_of(f"{namespace}:{hashlib.sha256(id.encode()).hexdigest()}")


def test_no_id_leaves_the_process(own_server: RedisServer, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.socket(socket.AF_UNIX) as watch, Cache(own_server.unix_url, namespace=namespace) as cache:
        watch.connect(own_server.unix_url.partition("://")[2].partition("?")[0])
        watch.sendall(b"MONITOR\r\n")
        watch.settimeout(5.0)
        session = cache.sessions.create({"user_id": 7, "step": 1})
        told = [session.id]
        session["step"] = 2
        cache.sessions.save(session)
        told.append(cache.sessions.rotate(session).id)
        for each in told:
            cache.sessions.load(each)
        cache.sessions.of(7)
        names = [name.decode() for name in own_server.command("KEYS", "*")]
        assert {record_of(namespace, told[1]), sessions_of(f"{namespace}:{hashlib.sha256(b'7').hexdigest()}")} <= {
            *names
        }
        cache.sessions.destroy_all(7)
        with pytest.raises(SessionLostError) as lost:
            cache.sessions.save(session)
        own_server.pause()
        with pytest.raises(BackendError) as silent:
            cache.sessions.load(told[1])
        own_server.resume()
        own_server.command("ECHO", "the end of what is watched")
        heard = b""
        while b"the end of what is watched" not in heard:
            heard += watch.recv(65_536)
    everywhere = "\n".join([heard.decode(), *names, caplog.text, repr(lost.value), repr(silent.value)])
    everywhere += generate_latest(REGISTRY).decode()
    assert "HGETALL" in heard.decode()
    assert not any(each in everywhere for each in told)


@pytest.mark.parametrize(
    "fields",
    [
        {"a": "1"},
        {"idle": "x", "end": "y"},
        {"idle": "1000", "end": "9" * 300},
        {"idle": "9" * 300, "end": "9" * 14},
        {"idle": "1e3", "end": "9" * 14},
        {"idle": "0", "end": "9" * 14},
        {"idle": "-5", "end": "9" * 14},
        {"idle": "1000"},
        {"idle": "1000", "end": "1"},
        {"idle": "1000", "end": "9" * 14, "moved": ""},
        {"idle": "1000", "end": "9" * 14, ":a": b"\x00"},
        {"idle": "1000", "end": "9" * 14, b":\xff": GOOD},
    ],
)
def test_records_that_are_no_sessions_are_none(
    cache: Cache, redis_server: RedisServer, namespace: str, fields: dict[str | bytes, str | bytes]
) -> None:
    session = cache.sessions.create({"user_id": 7})
    name = record_of(namespace, session.id)
    redis_server.command("DEL", name)
    redis_server.command("HSET", name, *[word for pair in fields.items() for word in pair])
    assert cache.sessions.load(session.id) is None
    assert cache.sessions.of(7) == []
    with pytest.raises(SessionLostError):
        cache.sessions.rotate(session)


@pytest.mark.parametrize("command", [("SET", "x"), ("RPUSH", "x"), ("ZADD", "1", "x")])
def test_records_of_another_type_are_none(
    cache: Cache, redis_server: RedisServer, namespace: str, command: tuple[str, ...]
) -> None:
    session = cache.sessions.create()
    name = record_of(namespace, session.id)
    redis_server.command("DEL", name)
    redis_server.command(command[0], name, *command[1:])
    assert cache.sessions.load(session.id) is None
    with pytest.raises(SessionLostError):
        cache.sessions.save(session)
    assert cache.sessions.destroy(session.id)


@pytest.mark.parametrize("options", [{}, {"codec": "pickle", "secret": "x" * 16}, {"codec": "json"}])
def test_records_never_execute(
    redis_server: RedisServer, namespace: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with Cache(redis_server.unix_url, namespace=namespace, **options) as cache:
        session = cache.sessions.create({"a": "fine"})
        assert cache.sessions.load(session.id) == session
        for codec in (*range(16), 255):
            raw = bytes((codec, 0)) + NO_SCHEMA + pickle.dumps(Trap(tmp_path / "sprung"))
            redis_server.command("HSET", record_of(namespace, session.id), ":a", raw)
            assert cache.sessions.load(session.id) is None, codec
            redis_server.command("HSET", record_of(namespace, session.id), ":a", raw[10:])
            assert cache.sessions.load(session.id) is None, codec
    assert ids.PICKLE in range(16)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_all_records_end_by_themselves(cache: Cache, redis_server: RedisServer, namespace: str) -> None:
    session = cache.sessions.create({"user_id": 7}, ttl=60, absolute=600)
    user = sessions_of(f"{namespace}:{hashlib.sha256(b'7').hexdigest()}")
    assert 50_000 < redis_server.command("PTTL", record_of(namespace, session.id)) <= 60_000
    assert 590_000 < redis_server.command("PTTL", user) <= 600_000
    cache.sessions.create({"user_id": 7}, ttl=60, absolute=60)
    assert 590_000 < redis_server.command("PTTL", user) <= 600_000
    cache.sessions.create({"user_id": 7}, ttl=60, absolute=6000)
    assert redis_server.command("PTTL", user) > 600_000
    redis_server.command("PEXPIRE", record_of(namespace, session.id), 1_000)
    cache.sessions.save(session)
    assert redis_server.command("PTTL", record_of(namespace, session.id)) > 50_000


def test_half_a_rotation_ends_soon(cache: Cache, redis_server: RedisServer, namespace: str) -> None:
    session = cache.sessions.create()
    with faults(cache) as engine:
        engine.fail("session_create")
        with pytest.raises(BackendError):
            cache.sessions.rotate(session)
    assert 0 < redis_server.command("PTTL", record_of(namespace, session.id)) <= 60_000
    assert cache.sessions.load(session.id) is None
    assert cache.sessions.destroy(session.id)
