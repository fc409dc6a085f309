"""rediss:// with an authority of its own and certificates on both sides, and what is said where they do not fit."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nearcache import AsyncCache, Cache
from nearcache.backends.registry import Flavour
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError, ConfigError
from tests.faces import Awaited
from tests.integration.redis.helpers import eventually, made
from tests.sentinel import GROUP, HASTY, QUORUM, WITHIN, Group, Sentinel
from tests.servers import RedisServer, free_port
from tests.tls import CA, CLIENT, ELSEWHERE, EXPIRED, KEY, SERVER, STRANGER, TlsServer, query, tls_options, tls_server

CLIENT_CERTIFICATE = r"client certificate.*\(CACHE_URL\).*ssl_certfile"
"""What is said about the certificate of this side."""

AUTHORITY = r"no TLS with the engine.*self-signed certificate.*\(CACHE_URL\).*ssl_ca_certs"


async def fails(url: str, flavour: Flavour, kind: type[BackendError], said: str, timeout: float = 10.0) -> None:
    """Connect, and have it fail in these words, without a password; in good time, for a handshake takes computing."""
    backend = made(url.replace("://", "://me:open-sesame@"), flavour, "t", timeout=timeout)
    with pytest.raises(kind, match=said) as raised:
        await backend.get("a")
    await backend.close()
    assert raised.value.ambiguous is False
    assert "open-sesame" not in str(raised.value)


@pytest.mark.parametrize("authority", [STRANGER, None], ids=["another", "those of this machine"])
async def test_an_engine_of_another_authority_is_refused(tls_server: TlsServer, flavour: Flavour, authority):
    await fails(tls_server.tls_url(ca=authority), flavour, BackendUnavailableError, AUTHORITY)


async def test_a_certificate_of_another_host_is_refused(flavour: Flavour):
    with tls_server(ELSEWHERE) as server:
        await fails(server.tls_url(), flavour, BackendUnavailableError, r"mismatch.*\(CACHE_URL\) must name a host")
        trusting = made(f"{server.tls_url()}&ssl_check_hostname=false", flavour, "t")
        assert await trusting.get("a") is None
        await trusting.close()


async def test_a_certificate_that_has_expired_is_refused(flavour: Flavour):
    with tls_server(EXPIRED) as server:
        await fails(server.tls_url(), flavour, BackendUnavailableError, r"has expired.*renew.*url \(CACHE_URL\)")


@pytest.mark.parametrize("client", [None, STRANGER, EXPIRED], ids=["none", "another authority's", "expired"])
async def test_a_client_that_shows_no_certificate_or_a_wrong_one_is_told_of_it(
    tls_server: TlsServer, flavour: Flavour, client
):
    await fails(tls_server.tls_url(client=client), flavour, BackendUnavailableError, CLIENT_CERTIFICATE)


@pytest.mark.parametrize("client", [None, STRANGER], ids=["none", "another authority's"])
async def test_with_the_older_tls_that_is_said_within_the_handshake(flavour: Flavour, client):
    said = f"no TLS with the engine.*{CLIENT_CERTIFICATE}"
    with tls_server(SERVER, "--tls-protocols", "TLSv1.2") as server:
        await fails(server.tls_url(client=client), flavour, BackendUnavailableError, said)


async def test_a_port_without_tls_is_asked_about(tls_server: TlsServer, flavour: Flavour):
    """The engine waits for the end of what it takes for a line, or calls it nonsense, as chance has it."""
    url = f"rediss://localhost:{tls_server.port}/0?{query()}"
    said = r"does it speak TLS there\? If not, url \(CACHE_URL\) begins with redis://"
    await fails(url, flavour, BackendError, said, timeout=0.5)


async def test_an_engine_that_is_silent_took_too_long(flavour: Flavour):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rediss://localhost:{silent.getsockname()[1]}/0"
        await fails(url, flavour, BackendTimeoutError, "took too long; does it speak TLS there", timeout=0.5)


async def test_a_plain_connection_to_a_port_of_tls_is_told_of_it(tls_server: TlsServer, flavour: Flavour):
    said = r"does not speak as a Redis engine does; if it speaks TLS, url \(CACHE_URL\) begins with rediss://"
    await fails(f"redis://localhost:{tls_server.tls_port}/0", flavour, BackendUnavailableError, said)


async def test_where_nobody_listens_tls_is_not_the_matter(flavour: Flavour):
    await fails(f"rediss://localhost:{free_port()}/0", flavour, BackendUnavailableError, "is it running")


@pytest.mark.parametrize("files", [f"ssl_keyfile={KEY}", f"ssl_certfile={CA}&ssl_keyfile={KEY}", "ssl_ca_certs=/no"])
@pytest.mark.parametrize("place", ["rediss://{}/0", "redis+sentinel://{}/mymaster", "redis+cluster://{}"])
async def test_files_that_do_not_belong_together_are_an_error_of_the_settings(
    tls_server: TlsServer, flavour: Flavour, place: str, files: str
):
    where = f"localhost:{tls_server.tls_port}"
    backend = made(f"{place.format(where)}?{files}", flavour, "t")
    with pytest.raises(ConfigError) as raised:
        await backend.get("a")
    await backend.close()
    assert f"TLS options for {where} cannot be used" in str(raised.value)
    assert all(file in str(raised.value) for file in files.split("&"))


async def test_health_tells_of_a_file_that_is_not_there(tls_server: TlsServer, flavour: Flavour):
    face = Cache if flavour == "sync" else AsyncCache
    cache = Awaited(face(f"rediss://localhost:{tls_server.tls_port}/0?ssl_ca_certs=/no", observers=()))
    health = await cache.health()
    await cache.close()
    assert not health.ok
    assert "ssl_ca_certs=/no" in str(health.error)


@pytest.mark.parametrize("password", ["", "&ssl_password=wrong"])
async def test_a_key_that_is_locked_is_an_error_and_nobody_is_asked(
    tls_server: TlsServer, flavour: Flavour, tmp_path: Path, password: str
):
    """The test has no terminal, where Python would ask: then it finds nobody there."""
    locked, command = tmp_path / "locked.pem", ["openssl", "pkey", "-aes128", "-passout", "pass:open-sesame"]
    subprocess.run([*command, "-in", KEY, "-out", locked], check=True)
    url = f"{tls_server.tls_url(client=None)}&ssl_certfile={CLIENT}&ssl_keyfile={locked}"
    backend = made(f"{url}{password}", flavour, "t", timeout=10.0)
    with pytest.raises(ConfigError, match=r"cannot be used: \[SSL\].*ssl_keyfile=.*locked") as raised:
        await backend.get("a")
    await backend.close()
    assert "wrong" not in str(raised.value)
    backend = made(f"{url}&ssl_password=open-sesame", flavour, "t", timeout=10.0)
    assert await backend.get("a") is None
    await backend.close()


@pytest.mark.parametrize("bus", ["tracking", "stream"])
def test_changes_are_announced_over_tls(tls_server: TlsServer, namespace: str, bus):
    with (
        closing(Cache(tls_server.tls_url(), namespace=namespace, bus=bus, timeout=10)) as here,
        closing(Cache(tls_server.tls_url(), namespace=namespace, bus=bus, timeout=10)) as elsewhere,
    ):
        elsewhere.set("a:1", "old")
        assert here.get("a:1") == "old"
        eventually(lambda: here.health().coherent, "changes are announced")
        before = here.stats().near_hits
        eventually(lambda: here.get("a:1") == "old" and here.stats().near_hits > before, "the value is near")
        elsewhere.set("a:1", "new")
        eventually(lambda: here.get("a:1") == "new", "the change is heard")
        elsewhere.invalidate_tags("none")
        elsewhere.delete("a:1")
        eventually(lambda: here.get("a:1") is None, "the deletion is heard")


def test_without_a_client_certificate_the_listener_says_so(tls_server: TlsServer, namespace: str):
    with closing(Cache(tls_server.tls_url(client=None), namespace=namespace)) as cache:
        assert cache.get("a:1") is None
        cache._parts.core.coherence.seek()
        eventually(lambda: "no connection announces" in (cache.health().incoherence or ""), "it is said")
        assert cache.health().coherent is False


IN_TLS = ("--tls-replication", "yes")


@contextmanager
def tls_sentinels(primary: TlsServer, number: int = 1) -> Iterator[tuple[str, list[RedisServer]]]:
    """Run sentinels of a primary that speak TLS; the block gets their URL, and them."""
    ports = [free_port() for _ in range(number)]
    sentinels: list[RedisServer] = [Sentinel("redis", primary.tls_port, *tls_options(port), *IN_TLS) for port in ports]
    try:
        for sentinel in sentinels:
            sentinel.start()
        yield f"redis+sentinel://{','.join(f'localhost:{port}' for port in ports)}/{GROUP}/0", sentinels
    finally:
        for sentinel in sentinels:
            sentinel.remove()


async def test_sentinels_and_the_primary_speak_tls(flavour: Flavour):
    with tls_server() as primary, tls_sentinels(primary) as (url, _):
        backend = made(f"{url}?{query()}", flavour, "t", timeout=10.0)
        assert await backend.get("a") is None
        await backend.close()
        for options, said in ((query(client=None), CLIENT_CERTIFICATE), (query(ca=STRANGER), AUTHORITY)):
            await fails(f"{url}?{options}", flavour, BackendUnavailableError, f"no sentinel tells.*{said}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Cache, AsyncCache])
async def test_when_the_primary_is_killed_what_was_written_is_read_from_another_over_tls(kind: Any, namespace: str):
    with (
        tls_server() as primary,
        tls_server(SERVER, *IN_TLS, "--replicaof", f"127.0.0.1 {primary.tls_port}", *HASTY) as replica,
        tls_sentinels(primary, QUORUM) as (url, sentinels),
    ):
        cache = Awaited(kind(f"{url}?{query()}", namespace=namespace, near=None, timeout=10.0))
        eventually(lambda: replica.info("replication")["master_link_status"] == "up", "it follows")
        await cache.set("users:1", "before")
        eventually(lambda: replica.command("EXISTS", cache.engine_key("users:1")) == 1, "it has it")
        Group([primary, replica], sentinels).wait_until_watched()
        primary.kill()
        deadline = time.monotonic() + WITHIN
        while await cache.get("users:1") != "before":
            assert time.monotonic() < deadline, "nobody has taken over"
            await asyncio.sleep(0.05)
        await cache.set("users:1", "after")
        assert replica.info("replication")["role"] == "master"
        assert await cache.get("users:1") == "after"
        await cache.close()
