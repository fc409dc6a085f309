"""`nearcache doctor` on real engines: it finds what is wrong, names what is missing, and leaves nothing behind."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from nearcache import Cache, _checkup
from nearcache._checkup import examine
from nearcache._core.ring import Ring
from nearcache.backends.redis.names import marks_of
from nearcache.backends.registers.marks import head_of
from nearcache.cli import main as cli
from tests.cluster import Cluster
from tests.hazelcast import SampleMember
from tests.rights import of_namespace, permissions, user
from tests.sentinel import Group
from tests.servers import CHECKOUT, MemcachedServer, RedisServer, free_port, memcached_server, redis_server
from tests.tls import TlsServer

SOUND = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")


@pytest.fixture(scope="module", params=["redis", "valkey"])
def sound(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that is set up as it should be."""
    with redis_server(request.param, *SOUND) as server:
        yield server


@pytest.fixture(autouse=True)
def namespace(monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the doctor look at this namespace."""
    monkeypatch.setenv("CACHE_NAMESPACE", "examined")
    return "examined"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the doctor wait no longer than the time to connect for what an engine does not say."""
    monkeypatch.setattr(_checkup, "PATIENCE", 0.0)
    monkeypatch.setattr(_checkup, "WARM_UP", 0.0)


def examined(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> tuple[int, dict[str, Any], Any]:
    """Return the exit code, the checks by name, and everything."""
    code = cli.main(["doctor", "--json", "--url", url, *arguments])
    said = capsys.readouterr()
    assert said.err == ""
    assert "open-sesame" not in said.out
    found = json.loads(said.out)
    return code, {check["name"]: check for check in found["checks"]}, found


def wrong(checks: dict[str, Any]) -> set[str]:
    """Return what fails."""
    return {name for name, check in checks.items() if check["works"] is False}


def kept(server: RedisServer) -> dict[bytes, object]:
    """Return what is in the engine."""
    return {key: server.command("DUMP", key) for key in server.command("KEYS", "*")}


def test_a_sound_engine_is_found_sound_and_nothing_is_left(capsys, sound: RedisServer) -> None:
    sound.flush()
    code, checks, found = examined(capsys, sound.url)
    assert (code, found["findings"]) == (0, 0)
    assert all(check["works"] is True and not check["advice"] for check in checks.values())
    assert all(each["holds"] for each in found["guarantees"])
    assert kept(sound) == {}


def test_a_node_of_a_cluster_is_no_server_of_its_own(capsys, cluster: Cluster, namespace: str) -> None:
    elsewhere = cluster.others(cluster.owner(marks_of(namespace)))[0]  # than where the record of invalidated tags is
    _, checks, _ = examined(capsys, elsewhere.url)
    told = [check["found"] for check in checks.values() if check["works"] is False]
    assert told
    assert all("node of a cluster; url (CACHE_URL) must begin with redis+cluster://" in found for found in told)


@pytest.mark.soak
def test_other_versions_are_sound_too(capsys, versioned_server: RedisServer, namespace: str) -> None:
    versioned_server.flush()
    code, checks, found = examined(capsys, versioned_server.url)
    assert (code, found["findings"]) == (0, 0)
    assert all(check["works"] is True for check in checks.values())
    assert versioned_server.info("server")["redis_version"] in checks["role"]["found"]
    assert kept(versioned_server) == {}
    with user(versioned_server, "least", permissions(namespace, stream=True)) as url:
        for bus in ("tracking", "stream"):
            assert examined(capsys, url, "--bus", bus)[0] == 0


@pytest.mark.parametrize("bus", ["tracking", "stream"])
def test_what_is_there_stays_as_it_is(capsys, sound: RedisServer, namespace: str, bus: Any) -> None:
    with Cache(sound.url, namespace=namespace, bus=bus, observers=()) as cache:
        cache.set("users:1", "x", tags=["t"])
        cache.invalidate_tags("other")
        before = kept(sound)
        assert examined(capsys, sound.url, "--bus", bus)[0] == 0
        assert kept(sound) == before
        assert cache.get("users:1") == "x"
    sound.flush()


def test_values_for_other_languages_and_without_a_near_tier_are_examined_too(sound: RedisServer) -> None:
    checks = {check.name: check for check in examine(Cache(sound.url, codec="json", near=None))}
    assert [name for name, check in checks.items() if not check.works] == ["tracking"]
    assert checks["tracking"].works is None
    assert kept(sound) == {}


def test_the_embedded_engine_is_sound(capsys, tmp_path) -> None:
    assert examined(capsys, f"embedded://{tmp_path / 'data'}")[0] == 0


def test_it_works_over_tls_and_through_sentinels(capsys, tls_server: TlsServer, watched: Group) -> None:
    for url in (tls_server.tls_url(), watched.url):
        assert wrong(examined(capsys, url)[1]) == set()


def test_replicas_are_examined_where_they_are_to_be_read(capsys, sound: RedisServer, watched: Group) -> None:
    assert "replicas" not in examined(capsys, watched.url)[1]
    assert examined(capsys, f"{watched.url}?read_from_replicas=yes")[1]["replicas"]["works"] is True
    told = examined(capsys, f"{sound.url}?read_from_replicas=yes")[1]
    assert wrong(told) == {"replicas"}
    assert "no replica is known to be up to date" in told["replicas"]["found"]
    assert kept(sound) == {}


def test_each_primary_of_a_cluster_is_examined(capsys, cluster: Cluster) -> None:
    before = [kept(node) for node in cluster.nodes]
    code, checks, found = examined(capsys, cluster.url)
    assert (code, wrong(checks)) == (1, set())
    assert {name for name, check in checks.items() if check["advice"]} == {"memory"}
    assert checks["memory"]["found"].startswith("127.0.0.1:")
    assert [each["title"] for each in found["guarantees"] if each["holds"]] == ["You read what you wrote"]
    assert [kept(node) for node in cluster.nodes] == before


def test_the_older_protocol_has_no_say_in_it(capsys, sound: RedisServer) -> None:
    assert examined(capsys, f"{sound.url}?protocol=2")[0] == 0


@pytest.mark.usefixtures("impatient")
def test_the_page_shows_what_is_printed(capsys, monkeypatch, redis_server: RedisServer) -> None:
    monkeypatch.setenv("CACHE_NAMESPACE", "app")
    shown = re.search(r"\$ nearcache doctor.*?\n(.*?)```", COMMAND_LINE.read_text(), re.DOTALL)
    rights = [right for right in permissions(stream=True) if right != "+client|tracking"]
    with user(redis_server, "shown", rights) as url:
        assert cli.main(["doctor", "--url", url]) == 1
    assert shown is not None
    assert without_numbers(capsys.readouterr().out) == without_numbers(shown[1])


COMMAND_LINE = CHECKOUT / "docs" / "command-line.md"


def without_numbers(text: str) -> str:
    """Return a text without what differs from engine to engine."""
    return re.sub(r"[\d.,]*\d", "0", text.replace("127.0.0.1", "cache"))


# What is wrong


def test_the_least_rights_are_enough(capsys, sound: RedisServer, namespace: str) -> None:
    with user(sound, "least", permissions(namespace)) as url:
        code, checks, _ = examined(capsys, url)
        assert (code, wrong(checks)) == (0, set())
        assert (checks["stream"]["works"], checks["persistence"]["works"]) == (None, None)
        assert examined(capsys, url, "--bus", "stream")[0] == 1
    with user(sound, "least", permissions(namespace, stream=True)) as url:
        assert examined(capsys, url, "--bus", "stream")[0] == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("left_out", permissions())
def test_each_right_that_is_missing_is_found(capsys, sound: RedisServer, namespace: str, left_out: str) -> None:
    rights = [right for right in permissions() if right != left_out]
    sound.command("SCRIPT", "FLUSH")
    with user(sound, "least", [of_namespace(right, namespace) for right in rights]) as url:
        code, checks, _ = examined(capsys, url)
    assert code == 1
    said = " ".join(checks[name]["found"] for name in wrong(checks)).lower()
    assert NAMED.get(left_out, left_out[1:]) in said


NAMED = {"~app:*": "noperm", "~{app:*": "noperm", "~{app}~m": "{examined}~m: ", "&app~i:*": "channel"}
"""What is said where a pattern is missing."""


@pytest.mark.usefixtures("impatient")
def test_a_stream_is_advised_where_the_engine_may_not_be_asked_to_announce(
    capsys, sound: RedisServer, namespace
) -> None:
    rights = [right for right in permissions(namespace, stream=True) if right != "+client|tracking"]
    with user(sound, "least", rights) as url:
        _, checks, found = examined(capsys, url)
        assert wrong(checks) == {"tracking"}
        assert 'bus="stream"' in checks["tracking"]["advice"]
        assert examined(capsys, url, "--bus", "stream")[0] == 0
    lacks = {each["title"]: each["lack"] for each in found["guarantees"] if each["lack"]}
    assert lacks == {"How old a near value may be": "near values live for `staleness`, however seldom they change"}


def test_an_engine_without_limits_and_with_snapshots_is_told_of(capsys) -> None:
    with redis_server("redis", "--save", "3600 1") as server:
        code, checks, found = examined(capsys, server.url)
        assert (code, wrong(checks)) == (1, set())
        lacks = {each["title"]: each["lack"] for each in found["guarantees"] if each["lack"]}
        assert lacks == {
            "After a restart or a fail-over": "what was deleted before the last minute comes back with a snapshot"
        }
        assert "set maxmemory" in checks["memory"]["advice"]
        assert 'on_reset="clear"' in checks["persistence"]["advice"]
        server.command("CONFIG", "SET", "maxmemory", "100mb")
        code, checks, _ = examined(capsys, server.url, "--on-reset", "clear")
        assert (code, checks["persistence"]["advice"]) == (1, "")
        assert "noeviction" in checks["memory"]["found"]
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
        assert examined(capsys, server.url, "--on-reset", "clear")[0] == 0


def test_a_full_engine_is_found_full(capsys) -> None:
    with redis_server("redis", "--maxmemory", "1") as server:
        _, checks, _ = examined(capsys, server.url)
    assert {"values", "leases"} <= wrong(checks)
    assert "the engine is full" in checks["values"]["found"]


@pytest.mark.usefixtures("impatient")
def test_a_replica_is_found_to_be_one(capsys, watched: Group) -> None:
    replica = next(server for server in watched.servers if server is not watched.primary())
    code, checks, found = examined(capsys, replica.url)
    assert code == 1
    assert {"values", "leases", "tags", "role", "tracking"} <= wrong(checks)
    assert f"a replica of 127.0.0.1:{watched.primary().port}" in checks["role"]["found"]
    assert "point it at the primary" in checks["values"]["found"]
    assert not any(each["holds"] for each in found["guarantees"])


@pytest.mark.usefixtures("impatient")
def test_an_engine_without_the_newer_protocol_is_told_of(capsys) -> None:
    with redis_server("redis", *SOUND, "--rename-command", "HELLO", "") as server:
        _, checks, _ = examined(capsys, server.url)
        assert set(checks) == {"connection"}
        assert "unknown command" in checks["connection"]["found"]
        assert "protocol=2" in checks["connection"]["found"]
        _, checks, _ = examined(capsys, f"{server.url}?protocol=2")
        assert wrong(checks) == {"tracking", "messages"}
        assert "unknown command" in checks["tracking"]["found"]
        assert "bus" not in checks["tracking"]["advice"]


@pytest.mark.usefixtures("impatient")
def test_an_engine_that_is_silent_is_the_only_finding(capsys, own_server: RedisServer) -> None:
    own_server.pause()
    code, checks, _ = examined(capsys, own_server.url)
    assert (code, set(checks)) == (1, {"connection"})


# Memcached


def test_sound_memcached_servers_are_found_sound(capsys, memcached_servers: list[MemcachedServer]) -> None:
    url = f"memcached://{','.join(server.where for server in memcached_servers)}"
    code, checks, found = examined(capsys, url)
    assert (code, wrong(checks)) == (0, set())
    assert all(f"{server.where} is a Memcached 1.6" in checks["servers"]["found"] for server in memcached_servers)
    assert "records evicted" in checks["memory"]["found"]
    assert checks["records"]["found"] == "of at most 1,048,576 bytes"
    assert "near values live for `staleness`" in checks["near"]["found"]
    assert "who waits for one in another process asks" in checks["asking"]["found"]
    lacks = {each["title"] for each in found["guarantees"] if each["lack"]}
    assert lacks == {"One load, however many ask", "How old a near value may be"}
    assert examined(capsys, f"{url}?eject=no")[0] == 0
    code, checks, found = examined(capsys, f"{url}?eject=yes")
    assert (code, checks["eject"]["works"]) == (0, None)
    lacks = {each["title"] for each in found["guarantees"] if "its keys have moved to the others" in each["lack"]}
    assert lacks == {"Invalidation beats an earlier load", "How old a near value may be"}


def test_a_memcached_server_that_is_dead_is_found_wherever_the_tags_are(
    capsys, memcached: MemcachedServer, namespace: str
) -> None:
    ports = (free_port() for _ in range(100))
    places = (("127.0.0.1", port) for port in ports)
    ends = {Ring([(memcached.host, memcached.port), place]).of(head_of(namespace)): place[1] for place in places}
    for number, port in ends.items():
        code, checks, _ = examined(capsys, f"memcached://{memcached.where},127.0.0.1:{port}")
        assert code == 1
        name = "connection" if number else "servers"
        assert name in wrong(checks)
        assert f"cannot reach the engine at 127.0.0.1:{port}" in checks[name]["found"]
    assert set(ends) == {0, 1}


def test_what_memcached_servers_are_started_with_is_judged(capsys, memcached: MemcachedServer) -> None:
    small = ("-I", "16k", "-o", "slab_chunk_max=8192", "-M")
    with memcached_server(*small) as first, memcached_server("-C") as second:
        _, checks, _ = examined(capsys, f"memcached://{first.where}")
        assert "start it without -M" in checks["memory"]["advice"]
        assert "a larger -I" in checks["records"]["advice"]
        _, checks, _ = examined(capsys, f"memcached://{second.where}")
        assert set(checks) == {"connection"}
        assert f"{second.where} runs with the option -C" in checks["connection"]["found"]
    with memcached_server("-I", "2m") as larger:
        _, checks, _ = examined(capsys, f"memcached://{memcached.where},{larger.where}")
        assert checks["records"]["found"] == "of at most 1,048,576 bytes; of 2,097,152 on other servers"
        assert "the same -I" in checks["records"]["advice"]


# Hazelcast


@pytest.mark.alone
def test_a_hazelcast_member_of_the_sample_configuration_is_found_sound(capsys, monkeypatch) -> None:
    monkeypatch.setenv("CACHE_NAMESPACE", "app")
    sample = SampleMember()
    try:
        sample.start()
        code, checks, found = examined(capsys, sample.url)
    finally:
        sample.remove()
    assert (code, found["findings"]) == (0, 0)
    assert checks["ring"]["found"] == "changes are announced and read; it keeps the last 10,000"
    lacks = {each["title"]: each["lack"] for each in found["guarantees"] if each["lack"]}
    assert "You read what you wrote" not in lacks
    assert lacks["How old a near value may be"] == (
        "each half of a cluster that has fallen apart is told of its own changes alone"
    )
