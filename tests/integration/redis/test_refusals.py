"""An engine that answers, and refuses to write: it is read as if nothing had happened."""

import logging

import pytest

from nearcache import BackendError, Cache
from tests.servers import RedisServer

REFUSALS = {
    "full": ("CONFIG", "SET", "maxmemory", "1"),
    "without enough replicas": ("CONFIG", "SET", "min-replicas-to-write", "1"),
    "a replica itself": ("REPLICAOF", "127.0.0.1", "1"),
}


@pytest.fixture(params=REFUSALS.values(), ids=list(REFUSALS))
def refusing(request: pytest.FixtureRequest, own_server: RedisServer) -> Cache:
    cache = Cache(own_server.unix_url, namespace="refused", near=None)
    cache.set_many({f"k:{number}": number for number in range(5)})
    own_server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own_server.command(*request.param)
    return cache


def test_reads_go_on(refusing: Cache) -> None:
    assert [refusing.get_or_load(f"cold:{number}", lambda: "v") for number in range(10)] == ["v"] * 10
    with pytest.raises(BackendError):
        refusing.set("k:1", "new")
    assert [refusing.get(f"k:{number}") for number in range(5)] == list(range(5))
    assert refusing.exists("k:1")


@pytest.mark.parametrize("refusing", [REFUSALS["without enough replicas"], REFUSALS["a replica itself"]], indirect=True)
def test_what_was_to_be_deleted_is_a_miss_and_the_rest_is_served(refusing: Cache) -> None:
    with pytest.raises(BackendError):
        refusing.delete("k:1")
    for _ in range(3):
        assert refusing.get_many([f"k:{number}" for number in range(5)]) == {f"k:{n}": n for n in (0, 2, 3, 4)}
        assert refusing.get("k:1") is None
        assert not refusing.exists("k:1")


def test_it_is_one_warning_and_no_lost_engine(refusing: Cache, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "nearcache"):
        for number in range(20):
            refusing.get_or_load(f"cold:{number}", lambda: "v")
    assert len(caplog.messages) == 1
    assert "the redis engine refuses" in caplog.messages[0]


def test_what_was_done_on_the_same_trip_as_a_question_that_was_refused_is_in_doubt(own_server: RedisServer) -> None:
    cache = Cache(own_server.unix_url, namespace="refused", near=None)
    assert cache.incr("n:1") == 1
    own_server.command("ACL", "SETUSER", "default", "-zrevrangebyscore")
    with pytest.raises(BackendError, match="permission") as raised:
        cache.incr("n:1")
    assert raised.value.ambiguous, "it was counted"
    own_server.command("ACL", "SETUSER", "default", "+zrevrangebyscore")
    assert cache.get("n:1") == 2
    cache.close()
