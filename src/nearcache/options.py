"""Options of a cache: an argument beats a CACHE_* variable, which beats the default."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, TypeVar, cast, get_args

from nearcache._core.keys import Namespace
from nearcache._core.secret import checked_secret, checked_session_keys
from nearcache._core.settings import Settings, boolean, is_ttl_class, milliseconds, whole_number
from nearcache._core.ttl import TTL, TtlRules, described, parse_duration
from nearcache._core.urls import DEFAULT_URLS, KINDS, redacted, scheme_of
from nearcache.errors import ConfigError

__all__ = [
    "TTL",
    "UNSET",
    "Bus",
    "Codec",
    "NearCopy",
    "NearLimit",
    "Options",
    "Unset",
    "parse_near",
    "redacted",
    "resolve",
]

Codec = Literal["msgpack", "msgpack+zstd", "json", "pickle", "pickle+zstd"]
NearCopy = Literal["copy", "share"]
OnReset = Literal["repeat", "clear"]
Bus = Literal["tracking", "stream"]
ReadPolicy = Literal["open", "closed"]
InvalidatePolicy = Literal["queue", "closed"]
LimitPolicy = Literal["share", "closed"]
Duration = float | int | timedelta | str
"""Seconds, a `timedelta` or a text such as "90s"."""

MOST_CONNECTIONS: Final = 10_000

_SIZE: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>B|KB|MB|GB|TB|KIB|MIB|GIB|TIB)", re.IGNORECASE)
_UNITS: Final = {"B": 1} | {f"{letter}B": 1_000**power for power, letter in enumerate("KMGT", 1)}
_BINARY_UNITS: Final = {f"{letter}IB": 1_024**power for power, letter in enumerate("KMGT", 1)}
_NEAR_MAY_BE: Final = 'a size such as "64MB", a number of entries, or None for no near tier'

_log = logging.getLogger("nearcache")
_reported: Final[dict[str, object]] = {}

Value = TypeVar("Value")


class LoadOptions(TypedDict, total=False):
    """Options of one loader; what is left out is the cache's. None turns `stale`, `fail_safe` or `soft_timeout` off."""

    none_ttl: TTL | None
    stale: "Duration | Unset | None"
    fail_safe: "Duration | Unset | None"
    soft_timeout: "Duration | Unset | None"
    hard_timeout: Duration | None
    background: bool | None


class Policy(TypedDict, total=False):
    """What is done while the engine cannot be reached, by class of operation; what is left out is the default.

    `read`: "open" (default), which takes everything for absent, so that loaders answer, or "closed", which raises.
    `invalidate`: "queue" (default), which repeats it later, or "closed", which raises (and repeats it later, too).
    `limit`: "share" (default), which lets each process consume its share of every limit, or "closed", which raises.
    """

    read: ReadPolicy
    invalidate: InvalidatePolicy
    limit: LimitPolicy


@dataclass(frozen=True, slots=True)
class Policies:
    """A `Policy`, checked and complete."""

    read: ReadPolicy = "open"
    invalidate: InvalidatePolicy = "queue"
    limit: LimitPolicy = "share"


POLICIES: Final[dict[str, tuple[str, ...]]] = {each.name: get_args(each.type) for each in fields(Policies)}
"""What may be said of each class of operation."""


class Unset(Enum):
    """The type of `UNSET`: an option that was not given."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class NearLimit:
    """How much the near tier may hold: a number of entries, or of bytes."""

    entries: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Options:
    """What a cache was told, checked; times in seconds."""

    url: str
    defaulted: bool
    """Whether the URL was neither given nor set."""
    enabled: bool
    namespace: str
    ttl: TTL
    ttl_rules: TtlRules
    none_ttl: float
    near: NearLimit | None
    near_copy: NearCopy
    near_snapshot: str | Path | None
    staleness: float
    bus: Bus
    codec: Codec
    secret: str | bytes | None
    session_keys: tuple[bytes, ...]
    types: tuple[type, ...]
    stale: float | None
    fail_safe: float | None
    soft_timeout: float | None
    hard_timeout: float
    background: bool | None
    on_reset: OnReset
    policy: Policies
    timeout: float
    pool_min: int
    pool_max: int
    pool_timeout: float

    @property
    def jitter(self) -> float:
        """The share of a ttl that jitter may take off."""
        return self.ttl_rules.jitter

    def __repr__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        shown["url"] = redacted(self.url)
        shown["secret"] = None if self.secret is None else "***"
        shown["session_keys"] = ("***",) * len(self.session_keys)
        return f"Options({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def resolve(
    url: str | Unset = UNSET,
    *,
    environ: Mapping[str, str],
    namespace: str | Unset = UNSET,
    ttl: TTL | Unset = UNSET,
    near: str | int | Unset | None = UNSET,
    codec: str | Unset = UNSET,
    secret: str | bytes | Unset | None = UNSET,
    session_keys: Iterable[str | bytes] | Unset = UNSET,
    types: Iterable[type] | Unset = UNSET,
    jitter: float | Unset = UNSET,
    none_ttl: TTL | Unset = UNSET,
    staleness: Duration | Unset = UNSET,
    bus: str | Unset = UNSET,
    hard_timeout: Duration | Unset = UNSET,
    soft_timeout: Duration | Unset | None = UNSET,
    stale: Duration | Unset | None = UNSET,
    fail_safe: Duration | Unset | None = UNSET,
    pool_min: int | Unset = UNSET,
    pool_max: int | Unset = UNSET,
    pool_timeout: Duration | Unset = UNSET,
    timeout: Duration | Unset = UNSET,
    near_copy: str | Unset = UNSET,
    near_snapshot: str | Path | Unset | None = UNSET,
    background: bool | Unset | None = UNSET,
    on_reset: str | Unset = UNSET,
    policy: Policy | Unset = UNSET,
) -> Options:
    """Return the options of a cache from its arguments and the environment; `ConfigError` names what is wrong."""
    settings = Settings(environ)
    _report_misspelt(settings)
    address, defaulted = _address(url, settings)
    rules = _ttl_rules(jitter, settings)
    fewest, most = _pool_sizes(pool_min, pool_max, settings)
    return Options(
        url=address,
        defaulted=defaulted,
        enabled=_enabled(settings),
        namespace=_namespace(namespace, settings),
        ttl=_ttl(ttl, rules),
        ttl_rules=rules,
        none_ttl=_none_ttl(none_ttl, rules),
        near=parse_near(_or(near, "64MB")),
        near_copy=cast(NearCopy, _one_of("near_copy", _or(near_copy, "copy"), get_args(NearCopy))),
        near_snapshot=_or(near_snapshot, None),
        staleness=parse_duration(_or(staleness, 1.0), "staleness"),
        bus=cast(Bus, _one_of("bus", _or(bus, "tracking"), get_args(Bus))),
        codec=cast(Codec, _one_of("codec", _or(codec, "msgpack"), get_args(Codec))),
        secret=checked_secret(_or(secret, None)),
        session_keys=checked_session_keys(_or(session_keys, ())),
        types=_types(_or(types, ())),
        stale=_kept("stale", stale, codec, rules),
        fail_safe=_kept("fail_safe", fail_safe, codec, rules),
        soft_timeout=_duration("soft_timeout", soft_timeout),
        hard_timeout=parse_duration(_or(hard_timeout, 30.0), "hard_timeout"),
        background=checked_background(_or(background, None)),
        on_reset=_on_reset(on_reset, codec),
        policy=_policies(_or(policy, Policy())),
        timeout=parse_duration(_or(timeout, 1.0), "timeout"),
        pool_min=fewest,
        pool_max=most,
        pool_timeout=_pool_timeout(pool_timeout, settings),
    )


def parse_near(near: object) -> NearLimit | None:
    """Return the limit of the near tier: a size such as "64MB" or "1.5GiB", a number of entries, or None for none."""
    if near is None:
        return None
    if isinstance(near, str):
        return NearLimit(bytes=_size(near))
    if isinstance(near, int) and not isinstance(near, bool) and near > 0:
        return NearLimit(entries=near)
    raise _wrong("near", near, _NEAR_MAY_BE)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    units = _UNITS | _BINARY_UNITS
    size = float(match["number"]) * units[match["unit"].upper()] if match else 0.0
    if not 1.0 <= size < 2.0**63:
        raise _wrong("near", text, _NEAR_MAY_BE)
    return int(size)


def _or(value: Value | Unset, default: Value) -> Value:
    return default if isinstance(value, Unset) else value


def _wrong(option: str, value: object, must_be: str) -> ConfigError:
    return ConfigError(f"{option} is {described(value)}; it must be {must_be}")


def _one_of(option: str, value: object, allowed: Collection[str]) -> str:
    if isinstance(value, str) and value in allowed:
        return value
    raise _wrong(option, value, " or ".join(map(repr, allowed)))


def _report_misspelt(settings: Settings) -> None:
    for variable, nearest in settings.misspelt():
        mine = object()
        if _reported.setdefault(variable, mine) is mine:  # once per process, whoever comes first
            ignored = "is not a setting of nearcache and is ignored"
            effect = "makes a class of data" if is_ttl_class(variable) else ignored
            _log.warning("%s %s; did you mean %s?", variable, effect, nearest)


def _duration(option: str, value: Duration | Unset | None) -> float | None:
    return None if isinstance(value, Unset) or value is None else parse_duration(value, option)


def _kept(option: str, value: Duration | Unset | None, codec: object, rules: TtlRules) -> float | None:
    seconds = _duration(option, value)
    rules.check_kept(option, seconds or 0.0)
    if seconds is not None:
        _need_header(option, codec)
    return seconds


def _on_reset(on_reset: object, codec: object) -> OnReset:
    chosen = cast(OnReset, _one_of("on_reset", _or(on_reset, "repeat"), get_args(OnReset)))
    if chosen == "clear":
        _need_header("on_reset='clear'", codec)
    return chosen


def _policies(given: object) -> Policies:
    if not isinstance(given, Mapping):
        raise _wrong("policy", given, 'a dict such as {"read": "closed", "invalidate": "queue"}')
    told = cast(Mapping[object, object], given)
    if unknown := [each for each in told if each not in POLICIES]:
        raise _wrong("policy", unknown[0], f"a dict with {' or '.join(map(repr, POLICIES))}")
    chosen = {str(each): _one_of(f"policy[{each!r}]", value, POLICIES[str(each)]) for each, value in told.items()}
    return Policies(**cast(Any, chosen))


def _need_header(option: str, codec: object) -> None:
    if codec == "json":
        raise ConfigError(f"{option} needs a header in front of every value, which codec='json' does not write")


def checked_background(value: object) -> bool | None:
    """Return the option background, or raise `ConfigError`."""
    if value is None or isinstance(value, bool):
        return value
    raise _wrong("background", value, "True, False, or None: where a loader's parameters are all in its key")


def _address(url: str | Unset, settings: Settings) -> tuple[str, bool]:
    if not isinstance(url, Unset):
        return _checked_url("url", url), False
    kind, text = _kind(settings), settings.text("CACHE_URL")
    if text is None:
        return DEFAULT_URLS[kind or "memory"], kind is None
    return _agreeing(_checked_url("CACHE_URL", text), kind, settings), False


def _kind(settings: Settings) -> str | None:
    kind = (settings.text("CACHE_TYPE") or "").lower()
    if kind and kind not in DEFAULT_URLS:
        raise settings.wrong("CACHE_TYPE", f"one of {', '.join(DEFAULT_URLS)}")
    return kind or None


def _checked_url(option: str, url: object) -> str:
    if not isinstance(url, str):
        raise _wrong(option, url, "a str such as 'redis://localhost:6379/0'")
    scheme = scheme_of(url)
    if scheme not in KINDS:
        known = " ".join(f"{name}://" for name in KINDS)
        encrypted = "; there an option such as ?ssl_ca_certs=... turns TLS on" * (scheme or "").startswith("rediss+")
        raise ConfigError(f"{option} is {redacted(url)}; it must begin with one of {known}{encrypted}")
    return scheme + url[len(scheme) :]


def _agreeing(url: str, kind: str | None, settings: Settings) -> str:
    kinds = {kind, "redis"} if kind == "valkey" else {kind}
    if kind is not None and KINDS[str(scheme_of(url))] not in kinds:
        raise settings.wrong("CACHE_TYPE", f"{KINDS[str(scheme_of(url))]!r} like CACHE_URL ({redacted(url)}), or unset")
    return url


def _enabled(settings: Settings) -> bool:
    return settings.read("CACHE_ENABLED", boolean, "true, 1, yes or on, or false, 0, no or off") is not False


def _namespace(namespace: str | Unset, settings: Settings) -> str:
    if not isinstance(namespace, Unset):
        return Namespace(namespace).name
    may_be = "1 to 100 characters of A-Z, a-z, 0-9, '_', '.', '-'"
    found = settings.read("CACHE_NAMESPACE", Namespace, may_be)
    return "app" if found is None else found.name


def _ttl_rules(jitter: float | Unset, settings: Settings) -> TtlRules:
    maximum = settings.ttl_maximum()
    return TtlRules(settings.ttl_classes(maximum), maximum, _jitter(_or(jitter, 0.1)))


def _jitter(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value < 1.0:
        return float(value)
    raise _wrong("jitter", value, "a share of the ttl, at least 0 and less than 1")


def _ttl(ttl: TTL | Unset, rules: TtlRules) -> TTL:
    if isinstance(ttl, Unset):
        return "default"
    rules.seconds(ttl)
    return ttl


def _none_ttl(none_ttl: TTL | Unset, rules: TtlRules) -> float:
    if isinstance(none_ttl, Unset):
        return min(60.0, rules.maximum)
    return rules.seconds(none_ttl, "none_ttl")


def _types(types: object) -> tuple[type, ...]:
    if isinstance(types, type) or not isinstance(types, Iterable):
        raise _wrong("types", types, "a list of classes")
    found = tuple(cast(Iterable[object], types))
    for each in found:
        if not isinstance(each, type):
            raise _wrong("types", each, "a list of classes")
    return cast(tuple[type, ...], found)


def _pool_sizes(fewest: int | Unset, most: int | Unset, settings: Settings) -> tuple[int, int]:
    high = _connections("pool_max", most, 1, "CACHE_POOL_MAX_SIZE", settings)
    low = _connections("pool_min", fewest, 0, "CACHE_POOL_MIN_SIZE", settings)
    high = 20 if high is None else high
    low = min(5, high) if low is None else low
    if low > high:
        raise ConfigError(
            f"pool_min (CACHE_POOL_MIN_SIZE) is {low}, more than pool_max (CACHE_POOL_MAX_SIZE), which is {high}; "
            "lower the one or raise the other"
        )
    return low, high


def _connections(option: str, value: object, lowest: int, variable: str, settings: Settings) -> int | None:
    may_be = f"a whole number from {lowest} to {MOST_CONNECTIONS}"
    if value is UNSET:
        return settings.read(variable, whole_number(lowest, MOST_CONNECTIONS), may_be)
    if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= MOST_CONNECTIONS:
        return value
    raise _wrong(option, value, may_be)


def _pool_timeout(value: Duration | Unset, settings: Settings) -> float:
    if not isinstance(value, Unset):
        return parse_duration(value, "pool_timeout")
    found = settings.read("CACHE_POOL_TIMEOUT", milliseconds, "a number of milliseconds, more than zero")
    return 5.0 if found is None else found
