"""Through sentinels: who the primary is, that they are asked again after a fail-over, what is said if nobody tells."""

import asyncio
import contextlib
import time
from typing import Any

import hiredis
import pytest

from nearcache import Cache
from nearcache.backends.base import Item
from nearcache.backends.redis.sentinel import Sentinels
from nearcache.backends.registry import Flavour
from nearcache.errors import BackendError, BackendUnavailableError, ConfigError
from tests.integration.redis.conftest import NewCache
from tests.integration.redis.helpers import clients, eventually, fake_server, made
from tests.sentinel import GROUP, WITHIN, Group, sentinel_group
from tests.servers import KINDS, Kind, free_port


def asks(*hosts: str, group: str = GROUP, query: str = "") -> str:
    """Return the URL of a group that these sentinels watch."""
    return f"redis+sentinel://{','.join(hosts)}/{group}/0{query}"


def hosts(group: Group) -> list[str]:
    """Return where the sentinels of a group are."""
    return [f"127.0.0.1:{sentinel.port}" for sentinel in group.sentinels]


# URLs


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://h1:26379", "the group they watch"),
        ("redis+sentinel:///mymaster", "the group they watch"),
        ("redis+sentinel://:secret@h1:port/mymaster", "the port"),
        ("redis+sentinel://:secret@h1/mymaster/first", "number of the database"),
        ("redis+sentinel://:secret@h1/mymaster?nosuch=secret", "no option nosuch"),
        ("redis+sentinel://:secret@h1/mymaster?protocol=2", "protocol=2"),
        ("redis+sentinel://:secret@h1/mymaster?max_connections=3", "CACHE_POOL_MAX_SIZE"),
    ],
)
def test_a_wrong_url_is_named_when_it_is_used_and_without_credentials(url: str, said: str):
    with pytest.raises(ConfigError, match="CACHE_URL") as raised:
        Cache(url)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "primary"),
    [
        ("redis+sentinel://{}/mymaster", "redis://h:7/?"),
        ("redis+sentinel://me:s%2Fcret@{}/mymaster/3?client_name=mine", "redis://me:s%2Fcret@h:7/3?client_name=mine"),
        ("redis+sentinel://{}/mymaster/0?sentinel_password=x&ssl_check_hostname=false", "tls"),
    ],
)
def test_the_url_of_the_primary_keeps_login_database_and_options(url: str, primary: str):
    with fake_server(lambda command: b"*2\r\n$1\r\nh\r\n$1\r\n7\r\n") as sentinel:
        sentinels = Sentinels(url.format(sentinel.url.removeprefix("redis://").removesuffix("/0")), 5.0)
        if primary == "tls":
            assert sentinels.url("h:7") == "rediss://h:7/0?ssl_check_hostname=false"
            return
        assert sentinels.primary() == primary
        assert sentinel.commands == [[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"mymaster"]]


# Who is asked


async def test_reads_and_writes_go_to_the_primary(watched: Group, flavour: Flavour, namespace: str):
    backend = made(watched.url, flavour, namespace)
    await backend.set(Item("a:1", b"x", 60))
    assert await backend.get("a:1") == b"x"
    assert clients(watched.primary())
    assert watched.primary().command("GET", f"{namespace}:a:1") == b"x"
    await backend.close()


async def test_the_next_sentinel_is_asked_where_one_does_not_answer(watched: Group, flavour: Flavour, namespace: str):
    backend = made(asks(f"127.0.0.1:{free_port()}", *hosts(watched)[:1]), flavour, namespace)
    await backend.ping()
    await backend.close()


@pytest.mark.alone
async def test_a_sentinel_that_is_silent_costs_its_share_of_the_time(watched: Group, flavour: Flavour, namespace: str):
    with fake_server(lambda command: b"") as silent:
        where = silent.url.removeprefix("redis://").removesuffix("/0")
        backend = made(asks(where, *hosts(watched)[:1]), flavour, namespace, timeout=2.0)
        began = time.monotonic()
        await backend.ping()
        assert time.monotonic() - began < 2.0
        await backend.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"_\r\n", "watches no 'mymaster'"),
        (b"+OK\r\n", "does not answer as a sentinel does"),
        (b"*2\r\n$1\r\nh\r\n$1\r\nx\r\n", "does not answer as a sentinel does"),
        (b"-ERR unknown command 'SENTINEL'\r\n", "unknown command"),
        (b"$-7\r\n", "does not answer (ProtocolError)"),
        (None, "does not answer (ConnectionResetError)"),
    ],
)
async def test_what_is_wrong_with_the_sentinels_is_told(answer: bytes | None, said: str, namespace: str):
    with fake_server(lambda command: answer) as wrong:
        where = wrong.url.removeprefix("redis://").removesuffix("/0")
        backend = made(asks(where, f"127.0.0.1:{free_port()}"), "sync", namespace)
        with pytest.raises(
            BackendUnavailableError, match="no sentinel tells where the primary of 'mymaster'"
        ) as raised:
            await backend.get("a:1")
        assert said in str(raised.value)
        assert "cannot reach" in str(raised.value)
        assert "names sentinels, and the group that they watch, as in redis+sentinel://" in str(raised.value)
        assert "their own login with ?sentinel_username=" in str(raised.value)
        assert not raised.value.ambiguous


async def test_a_sentinel_that_is_behind_is_asked_last(watched: Group, flavour: Flavour, namespace: str):
    (replica,) = [server for server in watched.servers if server is not watched.primary()]
    port = str(replica.port).encode()
    told = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)
    with fake_server(lambda command: told) as behind:
        where = behind.url.removeprefix("redis://").removesuffix("/0")
        backend = made(asks(where, *hosts(watched)[:1]), flavour, namespace)
        with pytest.raises(BackendUnavailableError, match="is not the primary"):
            await backend.set(Item("a:1", b"x", 60))
        await backend.set(Item("a:1", b"x", 60))
        await backend.close()


# Fail-over


class Watched:
    """A cache in each flavour over a group whose primary is lost."""

    def __init__(self, group: Group, new_cache: NewCache) -> None:
        self.group = group
        self.cache = new_cache(group.url)
        self.other = new_cache(group.url)
        for cache in (self.cache, self.other):
            cache.set("warm:1", 1)
        eventually(lambda: self.cache.health().coherent and self.other.health().coherent, "they hear of changes")

    def write_until_it_works(self) -> float:
        """Write until the engine takes it, in both flavours; return the seconds until then."""
        began, done = time.monotonic(), False

        async def write() -> None:
            await self.cache.aio.set("users:2", "by a task")

        while not done:
            assert time.monotonic() < began + 30.0, "no primary takes over"
            try:
                self.cache.set("users:1", "new")
                asyncio.run(write())
                done = True
            except BackendError:
                time.sleep(0.02)
        return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_primary_that_was_killed_is_replaced(kind: Kind, new_cache: NewCache):
    with sentinel_group(kind) as group:
        watched, old = Watched(group, new_cache), group.primary()
        watched.cache.set("users:1", "old")
        assert watched.other.get("users:1") == "old"
        watched.cache.delete("users:3")
        old.kill()
        assert watched.other.get("users:1") in ("old", None), "reads do not fail"
        seconds = watched.write_until_it_works()
        print(f"{kind}: writes worked {seconds:.1f} s after the primary was killed")
        assert group.primary() is not old
        eventually(lambda: watched.other.get("users:1") == "new", "the other one reads it")
        eventually(lambda: watched.other.health().coherent, "it hears of changes again")
        watched.cache.set("users:1", "newer")
        eventually(lambda: watched.other.get("users:1") == "newer", "it is told")


@pytest.mark.slow
def test_a_primary_that_was_demoted_is_left(new_cache: NewCache):
    """It goes on answering, and refuses to write; sentinels take about ten seconds to tell it of a planned change."""
    with sentinel_group("redis", replicas=1) as group:
        watched, old = Watched(group, new_cache), group.primary()

        def demoted() -> bool:
            if group.primary() is old:  # sentinels give up what takes them too long, on a busy machine
                with contextlib.suppress(hiredis.ReplyError):  # it is under way
                    group.sentinels[0].command("SENTINEL", "FAILOVER", GROUP)
            return b"slave" in old.command("ROLE") and group.primary() is not old

        eventually(demoted, "it is demoted", WITHIN)
        watched.write_until_it_works()
        assert group.primary().command("EXISTS", f"{watched.cache._parts.core.options.namespace}:users:1")
        eventually(lambda: watched.other.get("users:1") == "new", "the other one reads it")


def test_connections_to_a_primary_that_has_become_a_replica_are_given_up(own_server: Any, namespace: str):
    """Where a name leads to another server from some time on, the old one may go on answering."""
    backend = made(own_server.url, "sync", namespace, pool_min=2)
    asyncio.run(backend.open())
    before = clients(own_server)
    own_server.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(BackendError, match="READONLY"):
        asyncio.run(backend.set(Item("a:1", b"x", 60)))
    with pytest.raises(BackendError, match="READONLY"):
        asyncio.run(backend.set(Item("a:1", b"x", 60)))
    assert not before & clients(own_server)
    asyncio.run(backend.close())
