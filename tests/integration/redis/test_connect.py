"""Connecting: URLs, logins, TLS, and what is said when it does not work."""

import pytest

from nearcache.backends.redis.connect import CLIENT_NAME, Endpoint
from nearcache.backends.registry import Flavour
from nearcache.backends.transport.dial import Route
from nearcache.errors import BackendError, BackendUnavailableError, ConfigError
from tests.integration.redis.helpers import made, tls_in_front_of
from tests.servers import RedisServer, free_port
from tests.tls import STRANGER

WHOSE = ("INFO", "replication")
"""The last question of a new connection."""


def test_a_url_says_host_port_database_and_login():
    endpoint = Endpoint("redis://me:s%20cret@example.org:7000/3")
    assert (endpoint.host, endpoint.port, endpoint.path) == ("example.org", 7000, "")
    assert endpoint.greeting() == [
        ("HELLO", "3", "AUTH", "me", "s cret"),
        ("CLIENT", "SETNAME", CLIENT_NAME),
        ("SELECT", "3"),
        WHOSE,
    ]


def test_a_unix_url_says_path_and_database():
    endpoint = Endpoint("unix:///run/valkey/s?db=2&client_name=mine")
    assert (endpoint.host, endpoint.path) == ("", "/run/valkey/s")
    assert endpoint.greeting() == [("HELLO", "3"), ("CLIENT", "SETNAME", "mine"), ("SELECT", "2"), WHOSE]


def test_a_password_alone_is_that_of_the_default_user():
    assert Endpoint("redis://:secret@h").greeting()[0] == ("HELLO", "3", "AUTH", "default", "secret")


def test_the_older_protocol_logs_in_with_its_own_command():
    endpoint = Endpoint("redis://:secret@h?protocol=2")
    assert endpoint.greeting() == [("AUTH", "default", "secret"), ("CLIENT", "SETNAME", CLIENT_NAME), WHOSE]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nosuch=secret", "it has no option nosuch"),
        ("ssl_ca_certs=secret", "it has no option ssl_ca_certs; TLS begins with rediss://"),
        ("db=secret", "'db'"),
        ("protocol=9", "not a redis URL"),
        ("max_connections=7", "CACHE_POOL_MAX_SIZE"),
        ("socket_timeout=7", "the option timeout"),
        ("decode_responses=secret", "codec"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_without_its_value(query: str, said: str):
    with pytest.raises(ConfigError, match="CACHE_URL") as raised:
        Endpoint(f"redis://user:secret@h/0?{query}")
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


def test_where_tls_is_on_nobody_is_told_how_to_turn_it_on():
    with pytest.raises(ConfigError, match="it has no option ssl_nosuch") as raised:
        Endpoint("rediss://h/0?ssl_nosuch=1")
    assert "begins" not in str(raised.value)


@pytest.mark.parametrize("url", ["redis://user:secret@h:port/0", "redis://user:secret@[h/0", "http://user:secret@h"])
def test_a_url_that_cannot_be_read_is_an_error_without_credentials(url: str):
    with pytest.raises(ConfigError, match="CACHE_URL") as raised:
        Endpoint(url)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_missing_certificate_file_is_an_error_of_the_settings():
    endpoint = Endpoint("rediss://h/0?ssl_ca_certs=/no/such/file")
    with pytest.raises(ConfigError, match="TLS options for h:6379"):
        endpoint.tls()


def test_a_check_of_certificates_that_does_not_exist_is_an_error_with_those_that_do():
    with pytest.raises(ConfigError, match=r"\(ssl_cert_reqs may be required, optional or none\)"):
        Endpoint("rediss://h/0?ssl_cert_reqs=nope")


def test_an_endpoint_shows_no_credentials():
    assert repr(Endpoint("redis://user:secret@h:7000/0")) == "Endpoint(h:7000)"


def test_a_route_asks_for_the_address_each_time_and_reads_the_same_url_once():
    urls = ["unix:///a", "unix:///a", "unix:///b"]
    route = Route(lambda: urls.pop(0), Endpoint)
    assert len(urls) == 3
    first, second, third = route.endpoint(), route.endpoint(), route.endpoint()
    assert first is second
    assert (first.path, third.path, route.fixed) == ("/a", "/b", False)


async def test_a_login_is_used_and_a_wrong_one_says_what_to_check(own_server: RedisServer, flavour: Flavour):
    own_server.command("ACL", "SETUSER", "me", "on", ">secret", "~*", "+@all")
    own_server.command("CONFIG", "SET", "requirepass", "other")
    good = made(own_server.unix_url.replace("unix://", "unix://me:secret@"), flavour, "t")
    assert await good.get("a") is None
    await good.close()
    for login in ("me:wrong-secret@", ""):
        bad = made(own_server.unix_url.replace("unix://", f"unix://{login}"), flavour, "t")
        with pytest.raises(BackendError, match="user and password") as raised:
            await bad.get("a")
        assert raised.value.ambiguous is False
        assert "secret" not in str(raised.value)
        await bad.close()


async def test_a_database_that_does_not_exist_is_an_error_that_says_so(any_server: RedisServer, flavour: Flavour):
    backend = made(any_server.unix_url.replace("db=0", "db=9999"), flavour, "t")
    with pytest.raises(BackendError, match="DB index"):
        await backend.get("a")
    await backend.close()


async def test_the_older_protocol_serves_too(any_server: RedisServer, flavour: Flavour, namespace: str):
    backend = made(f"{any_server.unix_url}&protocol=2", flavour, namespace)
    assert await backend.get("a") is None
    assert await backend.remaining(["a"]) == [None]
    await backend.close()


async def test_the_connection_bears_the_librarys_name(own_server: RedisServer, flavour: Flavour):
    backend = made(own_server.url, flavour, "t")
    await backend.open()
    assert b" name=nearcache " in own_server.command("CLIENT", "LIST")
    await backend.close()


async def test_tls_serves_with_the_certificate_and_is_refused_without(
    valkey_server: RedisServer, flavour: Flavour, namespace: str
):
    with tls_in_front_of(valkey_server.socket) as port:
        url = f"rediss://localhost:{port}/0"
        trusting = made(f"{url}?ssl_ca_certs={STRANGER}", flavour, namespace)
        assert await trusting.get("a") is None
        assert await trusting.get("a") is None
        await trusting.close()
        careless = made(f"{url}?ssl_cert_reqs=none", flavour, namespace)
        assert await careless.get("a") is None
        await careless.close()
        strict = made(url, flavour, namespace)
        with pytest.raises(BackendUnavailableError, match=r"(?i)certificate") as raised:
            await strict.get("a")
        assert raised.value.ambiguous is False
        await strict.close()


async def test_nobody_listening_is_an_error_that_names_the_address(flavour: Flavour):
    port = free_port()
    backend = made(f"redis://127.0.0.1:{port}/0", flavour, "t")
    with pytest.raises(BackendUnavailableError, match=rf"127\.0\.0\.1:{port} \(.*CACHE_URL"):
        await backend.get("a")
    await backend.close()


@pytest.mark.parametrize("authority", [":secret@localhost:notaport", ":secret@localhost:99999", ":sec/ret@localhost:1"])
def test_a_wrong_port_is_named_without_credentials(authority: str):
    with pytest.raises(ConfigError, match="the port must be a number up to 65535") as raised:
        Endpoint(f"redis://{authority}/0")
    assert "sec" not in str(raised.value)


def test_a_unix_url_without_a_path_says_how_to_write_one():
    with pytest.raises(ConfigError, match="unix:///"):
        Endpoint("unix://relative")
