"""URLs of Memcached servers, and what is made of their greeting."""

from collections.abc import Mapping

import pytest

from nearcache import Cache
from nearcache.backends.memcached.connect import Endpoint, settings_of
from nearcache.backends.memcached.dialect import Refusal
from nearcache.errors import BackendError, ConfigError

TOLD = {"pid": "17", "time": "1000", "uptime": "10", "version": "1.6.18"}
SETTINGS = {"cas_enabled": "yes", "item_size_max": "1048576"}


def test_a_url_names_servers():
    places = [("cache1", 11212), ("10.0.0.2", 11211), ("::1", 11213), ("fe80::2", 11211)]
    assert settings_of("memcached://cache1:11212,10.0.0.2,[::1]:11213,[fe80::2]/") == (places, False)
    assert settings_of("memcached://cache1:11212,cache2?eject=no") == ([places[0], ("cache2", 11211)], False)
    assert settings_of("memcached://cache1:11212/?eject=yes") == ([places[0]], True)
    assert [Endpoint(*place).where for place in (("a", 1), ("::1", 2))] == ["a:1", "[::1]:2"]


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("memcached://", "it names servers"),
        ("memcached://user:secret@cache:11211", "no login"),
        ("memcached://cache:11211/0", "no login or path, and no option but eject"),
        ("memcached://cache:11211?timeout=1", "no login or path, and no option but eject"),
        ("memcached://cache:", "a host and perhaps a port"),
        ("memcached://cache:0", "a port up to 65535"),
        ("memcached://cache:65536", "a port up to 65535"),
        ("memcached://cache,,other", "a host and perhaps a port"),
        ("memcached://::1:11211", "as in cache1:11211 or"),
        ("memcached://cache,cache:11211", "names a server twice"),
        ("memcached://cache?eject=perhaps", "eject= is 'perhaps'; it may be yes or no"),
        ("memcached://cache?eject=yes&eject=no", "no option but eject"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, because: str):
    with pytest.raises(ConfigError, match=because) as caught:
        Cache(url)
    assert "url (CACHE_URL)" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_life_is_a_process_and_its_beginning():
    endpoint = Endpoint("cache", 11211)
    life = endpoint.check_greeting([TOLD, SETTINGS])
    assert life == endpoint.check_greeting([TOLD | {"time": "1005", "uptime": "15"}, SETTINGS])
    assert life != endpoint.check_greeting([TOLD | {"pid": "18"}, SETTINGS])
    assert life != endpoint.check_greeting([TOLD | {"uptime": "1"}, SETTINGS])


@pytest.mark.parametrize("absent", ["pid", "time", "uptime", "version"])
def test_who_does_not_tell_its_life_is_not_used(absent: str):
    told: Mapping[str, str] = {name: value for name, value in TOLD.items() if name != absent}
    with pytest.raises(BackendError, match="is it a proxy"):
        Endpoint("cache", 11211).check_greeting([told, SETTINGS])


@pytest.mark.parametrize(
    ("reply", "because"),
    [
        (TOLD | {"version": "1.5.22"}, "older than Memcached 1.6.13"),
        (TOLD | {"version": "1.6.9"}, "older than Memcached 1.6.13"),
        (TOLD | {"version": "1.6"}, "older than Memcached 1.6.13"),
        (Refusal("CLIENT_ERROR unauthenticated"), "wants a login"),
        (Refusal("ERROR"), "The meta protocol is needed"),
        ("1.6.18", "does not speak as a Memcached does"),
    ],
)
def test_who_cannot_be_used_is_told_why(reply: object, because: str):
    with pytest.raises(BackendError, match=because):
        Endpoint("cache", 11211).check_greeting([reply, SETTINGS])


def test_a_server_that_does_not_number_changes_is_not_used():
    with pytest.raises(BackendError, match="runs with the option -C"):
        Endpoint("cache", 11211).check_greeting([TOLD, SETTINGS | {"cas_enabled": "no"}])
