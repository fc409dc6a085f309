"""How the results of one loader are stored and served, how long anybody waits for them, and what makes up one load."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nearcache._core.ttl import TTL, parse_duration
from nearcache._engine.core import Core
from nearcache._engine.tags import no_tags
from nearcache._engine.write import Tagger
from nearcache.codecs.schema import Schema
from nearcache.options import UNSET, Duration, LoadOptions, Unset, checked_background


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of one loader, resolved; times in seconds.

    `apart`: a blocking load runs in a thread of its own, so that a hung one can be left. `background`: a value is
    refreshed while nobody waits; None: the caller decides.
    """

    ttl: TTL
    none_ttl: TTL | None
    stale: float
    fail_safe: float
    soft_timeout: float | None
    hard_timeout: float
    apart: bool
    background: bool | None
    schema: Schema | None = None

    @property
    def kept(self) -> float:
        """How long a value is kept after it is no longer fresh."""
        return max(self.stale, self.fail_safe)


@dataclass(frozen=True, slots=True)
class Job:
    """One load to be done: what to call, how to store the result, and its tags."""

    loader: Callable[[], Any]
    plan: Plan
    tag: Tagger = no_tags


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to store one load: the lease's token, the record that it may replace, and the epoch of the load.

    `replaces`: what is cached must go in any case; if the result cannot be stored, the key is deleted.
    """

    token: str
    seen: bytes
    epoch: int
    replaces: bool = False


def plan(core: Core, ttl: TTL, given: LoadOptions) -> Plan:
    """Return the plan of a loader: what is not given is the cache's; `ConfigError` names an option that is wrong."""
    known = LoadOptions.__annotations__
    if unknown := [name for name in given if name not in known]:
        raise TypeError(f"there is no option {unknown[0]!r}; there are: ttl, tags, {', '.join(known)}")
    options, none_ttl, hard = core.options, given.get("none_ttl"), given.get("hard_timeout")
    core.exact(ttl)
    if none_ttl is not None:
        core.exact(none_ttl, "none_ttl")
    soft = _or("soft_timeout", given.get("soft_timeout", UNSET), options.soft_timeout)
    background = checked_background(given.get("background"))
    return Plan(
        ttl=ttl,
        none_ttl=none_ttl,
        stale=_kept(core, "stale", given.get("stale", UNSET), options.stale),
        fail_safe=_kept(core, "fail_safe", given.get("fail_safe", UNSET), options.fail_safe),
        soft_timeout=soft,
        hard_timeout=options.hard_timeout if hard is None else parse_duration(hard, "hard_timeout"),
        apart=soft is not None or hard is not None,
        background=options.background if background is None else background,
    )


def _kept(core: Core, name: str, given: Duration | Unset | None, default: float | None) -> float:
    core.require_marks(name, given is not UNSET and given is not None)
    seconds = _or(name, given, default) or 0.0
    core.options.ttl_rules.check_kept(name, seconds)
    return seconds


def _or(name: str, given: Duration | Unset | None, default: float | None) -> float | None:
    if isinstance(given, Unset):
        return default
    return None if given is None else parse_duration(given, name)
