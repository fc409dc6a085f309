"""Rate limits, decided for many users in turn, all of whom are below them.

Several limits are one call of nearcache; others are asked for one limit after the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

from bench.subject import Subject, peer

USERS = [f"user{number}" for number in range(500)]

ONE = ((1_000, "minute"),)
THREE = ((100, "second"), (500, "minute"), (1_000, "hour"))

Quotas = Sequence[tuple[int, str]]
SHORT = {"second": "s", "minute": "m", "hour": "h"}


def nearcache_fixed(url: str = "memory://") -> Subject:
    """A limiter of kind "fixed"."""
    return _nearcache(url, "fixed", ONE)


def nearcache_fixed_three(url: str) -> Subject:
    """The same with three limits."""
    return _nearcache(url, "fixed", THREE)


def nearcache_sliding(url: str) -> Subject:
    """A limiter of kind "sliding"."""
    return _nearcache(url, "sliding", ONE)


def nearcache_sliding_three(url: str) -> Subject:
    """The same with three limits."""
    return _nearcache(url, "sliding", THREE)


def limits_fixed(url: str = "memory://") -> Subject:
    """`FixedWindowRateLimiter`."""
    return _limits(url, "FixedWindowRateLimiter", ONE)


def limits_fixed_three(url: str) -> Subject:
    """The same with three limits."""
    return _limits(url, "FixedWindowRateLimiter", THREE)


def limits_sliding(url: str) -> Subject:
    """`MovingWindowRateLimiter`, which keeps a log too."""
    return _limits(url, "MovingWindowRateLimiter", ONE)


def limits_sliding_three(url: str) -> Subject:
    """The same with three limits."""
    return _limits(url, "MovingWindowRateLimiter", THREE)


def throttled_fixed(url: str = "") -> Subject:
    """`Throttled` with `fixed_window`."""
    return _throttled(url, "fixed_window", ONE)


def throttled_fixed_three(url: str) -> Subject:
    """The same with three limits."""
    return _throttled(url, "fixed_window", THREE)


def throttled_sliding(url: str) -> Subject:
    """`Throttled` with `sliding_window`, which counts by halves."""
    return _throttled(url, "sliding_window", ONE)


def throttled_sliding_three(url: str) -> Subject:
    """The same with three limits."""
    return _throttled(url, "sliding_window", THREE)


def _nearcache(url: str, kind: str, quotas: Quotas) -> Subject:
    limiter = peer("nearcache").Cache(url, namespace="bench").limiter("api", *map(_text, quotas), kind=kind)

    def loop(n: int) -> None:
        hit, users, number = limiter.hit, USERS, len(USERS)
        for turn in range(n):
            if not hit(users[turn % number]):
                raise RuntimeError(REFUSED)

    return _deciding(loop, lambda: bool(limiter.hit("somebody")))


def _limits(url: str, strategy: str, quotas: Quotas) -> Subject:
    library = peer("limits")
    limiter = getattr(peer("limits.strategies"), strategy)(peer("limits.storage").storage_from_string(url))
    items = [library.parse(_text(quota)) for quota in quotas]

    def loop(n: int) -> None:
        hit, users, number = limiter.hit, USERS, len(USERS)
        for turn in range(n):
            user = users[turn % number]
            for item in items:
                if not hit(item, user):
                    raise RuntimeError(REFUSED)

    return _deciding(loop, lambda: all(limiter.hit(item, "somebody") for item in items))


def _throttled(url: str, kind: str, quotas: Quotas) -> Subject:
    library = peer("throttled")
    store = library.RedisStore(server=url) if url else library.MemoryStore(options={"MAX_SIZE": 10 * len(USERS)})
    limiters = [
        library.Throttled(using=kind, quota=f"{count}/{SHORT[period]}", store=store, key_prefix=period)
        for count, period in quotas
    ]

    def loop(n: int) -> None:
        calls, users, number = [each.limit for each in limiters], USERS, len(USERS)
        for turn in range(n):
            user = users[turn % number]
            for limit in calls:
                if limit(user).limited:
                    raise RuntimeError(REFUSED)

    return _deciding(loop, lambda: not any(each.limit("somebody").limited for each in limiters))


REFUSED = "a user was refused who is below the limit"


def _deciding(loop: Callable[[int], None], once: Callable[[], Any]) -> Subject:
    return Subject(loop, once, True)


def _text(quota: tuple[int, str]) -> str:
    count, period = quota
    return f"{count}/{period}"
