"""Options: an argument beats a variable, which beats the default."""

import enum
import logging
import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache import Cache, options
from nearcache._core.settings import VARIABLES
from nearcache.errors import ConfigError
from nearcache.options import UNSET, NearLimit, Policies, parse_near, resolve


def refused(**arguments: Any) -> str:
    environ = arguments.pop("environ", {})
    with pytest.raises(ConfigError) as error:
        resolve(environ=environ, **arguments)
    return str(error.value)


def test_with_nothing_set_a_cache_is_in_this_process_only():
    found = resolve(environ={})
    assert (found.url, found.defaulted, found.enabled, found.namespace) == ("memory://", True, True, "app")
    assert (found.ttl, found.none_ttl, found.jitter, found.staleness) == ("default", 60.0, 0.1, 1.0)
    assert (found.near, found.near_copy, found.codec, found.secret) == (
        NearLimit(bytes=64_000_000),
        "copy",
        "msgpack",
        None,
    )
    assert (found.hard_timeout, found.timeout, found.types) == (30.0, 1.0, ())
    assert (found.pool_min, found.pool_max, found.pool_timeout) == (5, 20, 5.0)
    assert found.ttl_rules.classes == {"default": 3_600.0, "session": 86_400.0, "config": 300.0}
    assert found.ttl_rules.maximum == 365 * 86_400


ARGUMENT_AND_VARIABLE: list[tuple[str, str, str, Any, Any, Any]] = [
    ("url", "CACHE_URL", "redis://b", "redis://b", "redis://a", "redis://a"),
    ("namespace", "CACHE_NAMESPACE", "b", "b", "a", "a"),
    ("pool_min", "CACHE_POOL_MIN_SIZE", "7", 7, 0, 0),
    ("pool_max", "CACHE_POOL_MAX_SIZE", "9", 9, 8, 8),
    ("pool_timeout", "CACHE_POOL_TIMEOUT", "1500", 1.5, "3s", 3.0),
]


@pytest.mark.parametrize(
    ("option", "variable", "text", "from_text", "argument", "from_argument"), ARGUMENT_AND_VARIABLE
)
def test_an_argument_beats_a_variable_which_beats_the_default(
    option, variable, text, from_text, argument, from_argument
):
    default = getattr(resolve(environ={}), option)
    assert getattr(resolve(environ={variable: text}), option) == from_text != default
    assert getattr(resolve(environ={variable: text}, **{option: argument}), option) == from_argument != from_text
    assert getattr(resolve(environ={variable: text}, **{option: UNSET}), option) == from_text


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_variable_counts_as_unset(variable, text):
    assert resolve(environ={variable: text}) == resolve(environ={})


def test_a_wrong_variable_does_not_matter_where_an_argument_beats_it():
    assert resolve(namespace="a", environ={"CACHE_NAMESPACE": "a:b"}).namespace == "a"
    assert resolve("memory://", environ={"CACHE_URL": "redis://h", "CACHE_TYPE": "memory"}).url == "memory://"


# Where the data lives


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("memory", "memory://"),
        ("embedded", "embedded://"),
        ("redis", "redis://localhost:6379/0"),
        ("valkey", "redis://localhost:6379/0"),
        ("Redis", "redis://localhost:6379/0"),
        ("memcached", "memcached://localhost:11211"),
        ("hazelcast", "hazelcast://localhost:5701/dev"),
    ],
)
def test_a_type_alone_means_its_usual_url(kind, url):
    found = resolve(environ={"CACHE_TYPE": kind})
    assert (found.url, found.defaulted) == (url, False)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("memory", "memory://"),
        ("embedded", "embedded:///var/cache"),
        ("redis", "redis://h"),
        ("redis", "rediss://h"),
        ("redis", "unix:///run/redis.sock"),
        ("redis", "redis+sentinel://h1:26379,h2:26379/mymaster/0"),
        ("valkey", "redis+cluster://h1:6379,h2:6379"),
        ("memcached", "memcached://h1:11211,h2:11211"),
        ("hazelcast", "hazelcast://h1:5701/dev"),
    ],
)
def test_a_type_that_agrees_with_the_url_changes_nothing(kind, url):
    assert resolve(environ={"CACHE_TYPE": kind, "CACHE_URL": url}) == resolve(environ={"CACHE_URL": url})
    assert resolve(environ={"CACHE_URL": url}).url == url
    assert not resolve(environ={"CACHE_URL": url}).defaulted
    assert not resolve(url, environ={}).defaulted


def test_a_type_that_contradicts_the_url_is_refused_without_the_password():
    message = refused(environ={"CACHE_TYPE": "memory", "CACHE_URL": "redis://u:hunter2@h:6379/0?password=hunter2"})
    assert message == "CACHE_TYPE is 'memory'; it must be 'redis' like CACHE_URL (redis://h:6379), or unset"


def test_an_unknown_type_is_refused_naming_the_known_ones():
    message = refused(environ={"CACHE_TYPE": "radis"})
    assert message == "CACHE_TYPE is 'radis'; it must be one of memory, embedded, redis, valkey, memcached, hazelcast"


def test_several_servers_get_tls_by_an_option_and_not_by_the_scheme():
    for scheme in ("rediss+sentinel", "rediss+cluster"):
        assert refused(url=f"{scheme}://h").endswith("there an option such as ?ssl_ca_certs=... turns TLS on")
    assert "TLS" not in refused(url="mysql://h")


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@h:1/x", "", "memory", "redis:/h", "u:hunter2@h", "://h", "hunter2 "]
)
def test_an_unknown_url_is_refused_naming_the_schemes_but_no_password(url):
    for message in (refused(url=url), *([refused(environ={"CACHE_URL": url})] if url else [])):
        assert "it must begin with one of memory:// embedded:// redis://" in message
        assert ":hunter2@" not in message


@pytest.mark.parametrize("url", [None, 5, b"redis://u:hunter2@h"])
def test_a_url_is_a_str(url):
    message = refused(url=url)
    assert message.startswith("url is ")
    assert "hunter2" not in message


def test_the_scheme_may_be_written_in_capitals():
    assert resolve("Redis://User:Pass@Host/0", environ={}).url == "redis://User:Pass@Host/0"


def test_a_url_in_the_wrong_variable_keeps_its_password_to_itself():
    for variable in VARIABLES:
        if variable != "CACHE_URL":
            assert "hunter2" not in refused(environ={variable: "redis://u:hunter2@h:6379/0"})


def test_options_show_neither_passwords_nor_secrets():
    found = resolve("redis://u:hunter2@h:6379/0?password=hunter2", secret="hunter2", codec="pickle", environ={})
    for text in (repr(found), str(found), f"{found}"):
        assert "hunter2" not in text
        assert "url='redis://h:6379'" in text
        assert "secret='***'" in text
    assert "secret=None" in repr(resolve(environ={}))


def test_options_cannot_be_changed_but_travel():
    found = resolve("redis://h", environ={}, types=[int])
    with pytest.raises(AttributeError):
        found.url = "redis://other"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(found)) == found


# Variables


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", " On "])
def test_a_cache_is_enabled_by_these_words(text):
    assert resolve(environ={"CACHE_ENABLED": text}).enabled is True


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "False"])
def test_a_cache_is_disabled_by_these_words(text):
    assert resolve(environ={"CACHE_ENABLED": text}).enabled is False


WRONG_VARIABLES = [
    ("CACHE_ENABLED", "maybe", "true, 1, yes or on, or false, 0, no or off"),
    ("CACHE_NAMESPACE", "a:b", "1 to 100 characters of A-Z, a-z, 0-9, '_', '.', '-'"),
    ("CACHE_POOL_MIN_SIZE", "-1", "a whole number from 0 to 10000"),
    ("CACHE_POOL_MIN_SIZE", "five", "a whole number from 0 to 10000"),
    ("CACHE_POOL_MIN_SIZE", "5.0", "a whole number from 0 to 10000"),
    ("CACHE_POOL_MIN_SIZE", "٥", "a whole number from 0 to 10000"),
    ("CACHE_POOL_MAX_SIZE", "0", "a whole number from 1 to 10000"),
    ("CACHE_POOL_MAX_SIZE", "9" * 5_000, "a whole number from 1 to 10000"),
    ("CACHE_POOL_TIMEOUT", "0", "a number of milliseconds, more than zero"),
    ("CACHE_POOL_TIMEOUT", "5s", "a number of milliseconds, more than zero"),
    ("CACHE_POOL_TIMEOUT", "inf", "a number of milliseconds, more than zero"),
    ("CACHE_POOL_TIMEOUT", "9" * 400, "a number of milliseconds, more than zero"),
    ("CACHE_TTL_DEFAULT", "0", "more than zero and at most 31536000 seconds"),
    ("CACHE_TTL_DEFAULT", "-5", "a number of seconds or a text such as '90s' or '1h'"),
    ("CACHE_TTL_SESSION", "nan", "a number of seconds or a text such as '90s' or '1h'"),
    ("CACHE_TTL_CONFIG", "366d", "more than zero and at most 31536000 seconds"),
    ("CACHE_TTL_PRODUCTS", "soon", "a number of seconds or a text such as '90s' or '1h'"),
    ("CACHE_TTL_MAX", "0", "more than zero and at most 365 days"),
    ("CACHE_TTL_MAX", "366d", "more than zero and at most 365 days"),
    ("CACHE_TTL_MAX", "for ever", "a number of seconds or a text such as '30d'"),
]


@pytest.mark.parametrize(("variable", "text", "may_be"), WRONG_VARIABLES)
def test_a_wrong_value_names_the_variable_its_value_and_what_it_may_be(variable, text, may_be):
    message = refused(environ={variable: text})
    assert message.startswith(f"{variable} is {text!r}; it must be ")
    assert may_be in message


@settings(deadline=None)
@given(st.sampled_from([*VARIABLES, "CACHE_TTL_OTHER"]), st.text(max_size=10) | st.from_regex(r"\A[0-9.a-z]{1,5}\Z"))
def test_every_text_is_a_setting_or_a_config_error(variable, text):
    message = variable
    try:
        resolve(environ={variable: text})
    except ConfigError as error:
        message = str(error)
    assert variable in message


def test_the_pool_timeout_is_in_milliseconds_in_the_environment_and_seconds_in_python():
    assert resolve(environ={"CACHE_POOL_TIMEOUT": "250"}).pool_timeout == 0.25
    assert resolve(pool_timeout=250, environ={}).pool_timeout == 250.0


# Time to live


def test_classes_of_data_are_set_by_variables_in_seconds_or_as_text():
    environ = {"CACHE_TTL_DEFAULT": "60", "CACHE_TTL_SESSION": "2h", "CACHE_TTL_PRODUCT_PAGES": "0.5"}
    rules = resolve(environ=environ).ttl_rules
    assert rules.classes == {"default": 60.0, "session": 7_200.0, "config": 300.0, "product_pages": 0.5}
    assert resolve(ttl="product_pages", environ=environ).ttl == "product_pages"


def test_the_maximum_bounds_every_ttl():
    environ = {"CACHE_TTL_MAX": "30"}
    found = resolve(environ=environ)
    assert found.ttl_rules.classes == {"default": 30.0, "session": 30.0, "config": 30.0}
    assert found.none_ttl == 30.0
    assert refused(environ=environ, ttl=31) == "ttl is 31; at most 30 seconds are allowed (CACHE_TTL_MAX)"
    assert refused(environ=environ, none_ttl="1m").startswith("none_ttl is '1m'; at most 30 seconds")
    message = refused(environ=environ | {"CACHE_TTL_SESSION": "1h"})
    assert message.startswith("CACHE_TTL_SESSION is '1h'; it must be ")
    assert "at most 30 seconds" in message


@pytest.mark.parametrize("option", ["ttl", "none_ttl", "staleness", "hard_timeout", "pool_timeout", "timeout"])
@pytest.mark.parametrize(
    "value", [0, -1, True, None, float("inf"), float("nan"), "", "soon", [], timedelta(0)], ids=repr
)
def test_a_wrong_time_names_its_option(option, value):
    assert refused(**{option: value}).startswith(f"{option} is ")


@pytest.mark.parametrize("option", ["none_ttl", "staleness", "hard_timeout", "pool_timeout", "timeout"])
@pytest.mark.parametrize("value", [90, 90.0, "90s", "1m30s", timedelta(seconds=90)], ids=repr)
def test_times_are_seconds_timedeltas_or_texts(option, value):
    assert getattr(resolve(environ={}, **{option: value}), option) == 90.0


@pytest.mark.parametrize("ttl", [90, "90s", "session", timedelta(seconds=90)], ids=repr)
def test_the_ttl_is_kept_as_it_was_given(ttl):
    assert resolve(environ={}, ttl=ttl).ttl == ttl


def test_none_ttl_may_be_a_class():
    assert resolve(environ={}, none_ttl="config").none_ttl == 300.0


@pytest.mark.parametrize("jitter", [-0.1, 1, 1.5, True, None, "0.1", float("nan")], ids=repr)
def test_a_wrong_jitter_is_refused(jitter):
    assert refused(jitter=jitter).startswith("jitter is ")


@pytest.mark.parametrize("jitter", [0, 0.5, 0.99])
def test_jitter_is_a_share(jitter):
    assert resolve(environ={}, jitter=jitter).jitter == jitter


# The pool


@pytest.mark.parametrize("arguments", [{"pool_max": 3}, {"environ": {"CACHE_POOL_MAX_SIZE": "3"}}])
def test_the_default_minimum_yields_to_a_small_maximum(arguments):
    found = resolve(**({"environ": {}} | arguments))
    assert (found.pool_min, found.pool_max) == (3, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"pool_min": 4, "pool_max": 3},
        {"pool_min": 21},
        {"environ": {"CACHE_POOL_MIN_SIZE": "21"}},
        {"pool_max": 3, "environ": {"CACHE_POOL_MIN_SIZE": "4"}},
    ],
)
def test_a_minimum_above_the_maximum_is_refused_naming_both(arguments):
    message = refused(**arguments)
    assert "CACHE_POOL_MIN_SIZE" in message
    assert "CACHE_POOL_MAX_SIZE" in message


@pytest.mark.parametrize(("option", "value"), [("pool_min", -1), ("pool_max", 0), ("pool_max", 10_001)])
def test_a_pool_size_has_bounds(option, value):
    assert refused(**{option: value}).startswith(f"{option} is {value}; it must be a whole number from ")


@pytest.mark.parametrize("option", ["pool_min", "pool_max"])
@pytest.mark.parametrize("value", [True, 5.0, "5", None, 10**5_000], ids=lambda value: type(value).__name__)
def test_a_pool_size_is_a_whole_number(option, value):
    assert refused(**{option: value}).startswith(f"{option} is ")


# The near tier


@pytest.mark.parametrize(
    ("near", "limit"),
    [
        (None, None),
        (10_000, NearLimit(entries=10_000)),
        (1, NearLimit(entries=1)),
        ("64MB", NearLimit(bytes=64_000_000)),
        ("64 mb", NearLimit(bytes=64_000_000)),
        ("1.5KB", NearLimit(bytes=1_500)),
        ("2GB", NearLimit(bytes=2_000_000_000)),
        ("1KiB", NearLimit(bytes=1_024)),
        ("64MiB", NearLimit(bytes=64 * 2**20)),
        ("1GiB", NearLimit(bytes=2**30)),
        ("512B", NearLimit(bytes=512)),
    ],
)
def test_the_near_tier_is_sized_in_bytes_or_entries_or_turned_off(near, limit):
    assert parse_near(near) == limit
    assert resolve(environ={}, near=near).near == limit


@pytest.mark.parametrize(
    "near", [0, -1, True, False, 1.5, "", "64", "MB", "0MB", "-1MB", "0.1B", "64 XB", "9" * 400 + "MB", b"1MB", [1]]
)
def test_a_wrong_near_size_is_refused_saying_what_it_may_be(near):
    assert refused(near=near).endswith(
        '; it must be a size such as "64MB", a number of entries, or None for no near tier'
    )


# The rest


@pytest.mark.parametrize(
    ("option", "value", "may_be"),
    [
        ("codec", "yaml", "'msgpack' or 'msgpack+zstd' or 'json' or 'pickle' or 'pickle+zstd'"),
        ("codec", None, "'msgpack' or 'msgpack+zstd' or 'json' or 'pickle' or 'pickle+zstd'"),
        ("near_copy", "maybe", "'copy' or 'share'"),
        ("bus", "redis", "'tracking' or 'stream'"),
        ("bus", None, "'tracking' or 'stream'"),
        ("types", "User", "a list of classes"),
        ("types", ["User"], "a list of classes"),
        ("types", int, "a list of classes"),
        ("types", enum.Enum("Color", ["RED"]), "a list of classes"),
        ("namespace", "a:b", "1 to 100 characters"),
        ("namespace", None, "1 to 100 characters"),
        ("namespace", "", "1 to 100 characters"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_may_be(option, value, may_be):
    message = refused(**{option: value})
    assert message.startswith(f"{option} is ")
    assert may_be in message


@pytest.mark.parametrize("secret", ["", b"", 5])
def test_a_secret_is_not_empty_and_never_shown(secret):
    assert refused(secret=secret) == "secret must be a str or bytes that is not empty"


def test_keys_for_sessions_are_32_bytes_and_never_shown():
    text, raw = "-_" * 21 + "A", b"k" * 32
    found = resolve(environ={}, session_keys=(text, raw, text + "="))
    assert [len(key) for key in found.session_keys] == [32, 32, 32]
    assert found.session_keys[0] == found.session_keys[2]
    assert "session_keys=('***', '***', '***')" in repr(found)
    assert resolve(environ={}).session_keys == ()
    for wrong in (text, raw, 7, None):
        assert refused(session_keys=wrong) == "session_keys must be a list of keys, the one to encrypt with first"
    for wrong in ("hunter2", "hunter2" * 6, "", text[:-1] + "!", text + text, "ü" * 43, b"k" * 31, 7, None):
        message = refused(session_keys=[raw, wrong])
        assert message.startswith("session_keys[1] must be 32 random bytes, or a text that secrets.token_urlsafe(32)")
        assert "hunter2" not in message


@pytest.mark.parametrize("codec", ["msgpack", "json", "pickle"])
def test_codecs_and_declared_types_are_kept(codec):
    found = resolve(environ={}, codec=codec, types=[int, str], secret=b"x", near_copy="share")
    assert (found.codec, found.types, found.secret, found.near_copy) == (codec, (int, str), b"x", "share")


@pytest.mark.parametrize("option", ["soft_timeout", "stale", "fail_safe"])
def test_an_option_is_off_unless_it_is_a_duration(option):
    nothing: dict[str, Any] = {option: None}
    assert resolve(environ={}, **nothing) == resolve(environ={})
    given: dict[str, Any] = {option: "10m"}
    assert getattr(resolve(environ={}, **given), option) == 600.0
    assert option in refused(**{option: 0})


@pytest.mark.parametrize("option", ["stale", "fail_safe"])
def test_values_without_a_header_are_not_kept_past_their_time(option):
    assert refused(**{option: "10m", "codec": "json"}).startswith(f"{option} needs a header")


def test_background_is_a_bool():
    assert resolve(environ={}, background=True).background is True
    assert "background" in refused(background="yes")


# Misspelt variables


@pytest.fixture(autouse=True)
def _nothing_reported(monkeypatch):
    monkeypatch.setattr(options, "_reported", {})


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("CACHE_NAMSPACE", "CACHE_NAMESPACE"),
        ("CACHE_ENABLE", "CACHE_ENABLED"),
        ("CACHE_TPYE", "CACHE_TYPE"),
        ("CACHE_URI", "CACHE_URL"),
        ("CACHE_POOL_MAXSIZE", "CACHE_POOL_MAX_SIZE"),
        ("CACHE_POOL_TIMEOUT_MS", "CACHE_POOL_TIMEOUT"),
        ("CACHE_POOL_MAX", "CACHE_POOL_MAX_SIZE"),
        ("CACHE_TTL_default", "CACHE_TTL_DEFAULT"),
    ],
)
def test_a_misspelt_variable_is_one_log_line_with_the_nearest_name_but_not_its_value(variable, nearest, caplog):
    for _ in range(3):
        resolve(environ={variable: "hunter2"})
    expected = f"{variable} is not a setting of nearcache and is ignored; did you mean {nearest}?"
    assert caplog.record_tuples == [("nearcache", logging.WARNING, expected)]


@pytest.mark.parametrize(
    "variable",
    [
        *VARIABLES,
        "CACHE_TTL_USERS",
        "CACHE_DIR",
        "CACHE_SIZE",
        "CACHE_TIMEOUT",
        "CACHE_DEFAULT_TIMEOUT",
        "CACHE_TTL",
        "CACHE_KEY_PREFIX",
        "CACHE_REDIS_URL",
        "CACHE_THRESHOLD",
        "CACHE_",
        "cache_url",
        "CCACHE_DIR",
        "PATH",
    ],
)
def test_known_names_and_those_of_other_libraries_are_not_reported(variable, caplog):
    resolve(environ={variable: ""})
    assert caplog.record_tuples == []


def test_a_codec_may_compress_what_is_large():
    engines = {name: Cache("memory://", codec=name, near=None, jitter=0) for name in ("msgpack", "msgpack+zstd")}
    text = "again and " * 1_000
    sizes = {}
    for name, cache in engines.items():
        cache.set_many({"texts:1": text, "texts:2": "short"})
        assert cache.get_many(["texts:1", "texts:2"]) == {"texts:1": text, "texts:2": "short"}
        records = cache._parts.core.records
        sizes[name] = records.size_bytes if records else 0
    assert sizes["msgpack+zstd"] < sizes["msgpack"] - 9_000


@pytest.mark.parametrize("codec", ["json+zstd", "msgpack+", "zstd", ""])
def test_a_codec_that_does_not_exist_is_a_wrong_setting(codec):
    assert "'msgpack+zstd'" in refused(codec=codec)


@pytest.mark.parametrize("url", ["redis://[::1", "embedded://[::1"])
def test_a_url_that_cannot_be_read_is_a_wrong_setting(url):
    with pytest.raises(ConfigError, match="CACHE_URL"):
        Cache(url)


def test_an_unknown_scheme_is_told_of_the_engines_that_there_are():
    message = refused(url="rediz://h")
    assert "redis://" in message
    assert "memcached://" in message
    assert "hazelcast://" in message


@pytest.mark.parametrize(
    ("variable", "nearest"), [("CACHE_TTL_DEFUALT", "CACHE_TTL_DEFAULT"), ("CACHE_TTL_SESION", "CACHE_TTL_SESSION")]
)
def test_a_class_of_data_much_like_a_known_one_is_one_log_line(variable, nearest, caplog):
    assert resolve(environ={variable: "5"}).ttl_rules.classes[variable.removeprefix("CACHE_TTL_").lower()] == 5
    expected = f"{variable} makes a class of data; did you mean {nearest}?"
    assert caplog.record_tuples == [("nearcache", logging.WARNING, expected)]


@pytest.mark.parametrize("variable", ["CACHE_TTL_USERS", "CACHE_TTL_MEDIA", "CACHE_TTL_SEARCH"])
def test_a_class_of_data_of_ones_own_is_no_misspelling(variable, caplog):
    resolve(environ={variable: "5"})
    assert caplog.record_tuples == []


@pytest.mark.parametrize(
    "url", ["redis://h:6379/abc", "redis://h:6379/0/1", "memory://host", "memory://?x=1", "redis://h?foo=1"]
)
def test_a_url_that_says_more_than_the_engine_understands_is_a_wrong_setting(url):
    with pytest.raises(ConfigError, match="CACHE_URL"):
        Cache(url)


@pytest.mark.parametrize("parts", [{"observers": 3}, {"observers": [3]}, {"clock": 3}], ids=str)
def test_what_is_no_observer_or_clock_is_a_wrong_setting(parts):
    with pytest.raises(ConfigError, match=f"^{next(iter(parts))} "):
        Cache("memory://", **parts)


def test_a_policy_is_complete_or_refused():
    assert resolve(environ={}).policy == Policies("open", "queue")
    assert resolve(environ={}, policy={"read": "closed"}).policy == Policies("closed", "queue")
    assert resolve(environ={}, policy={"invalidate": "closed"}).policy == Policies("open", "closed")
    assert "policy is 'closed'; it must be a dict such as" in refused(policy="closed")
    assert "policy is 'fill'; it must be a dict with 'read' or 'invalidate'" in refused(policy={"fill": "open"})
    assert "policy['read'] is 'queue'; it must be 'open' or 'closed'" in refused(policy={"read": "queue"})
    assert "policy['invalidate'] is 'open'; it must be" in refused(policy={"invalidate": "open"})
    assert "policy['read'] is None" in refused(policy={"read": None})
