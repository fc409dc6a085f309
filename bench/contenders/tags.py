"""Tags in a server: what an invalidation takes, and what readers and loaders pay for tags."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any

from bench.contenders.near import hits
from bench.contenders.remote import KEY, ROWS
from bench.subject import Subject, calls, peer
from bench.work import TTL, flat, row

TAG = "team:7"
MARKS = 100_000
DISTINCT = 10_000
"""How many values have a tag of their own."""

NEWER = 2_000
"""Tags that are invalidated after those values were stored: more than a process learns of at once when it begins."""

SAMPLE = 1_000
"""How many of the entries are looked at before and after."""

REST = 0.1
"""Seconds in which a process hears of what it has stored itself; it forgets near values when it does."""

WARM = 20
"""Invalidations of another tag before one that is timed, so that none begins with cold caches because many values were
stored before it."""

AT_ONCE = 1_000
MARKS_AT_ONCE = 100


def invalidate_hundred_thousand(url: str) -> Subject:
    """100,000 entries."""
    return invalidating(url, 100_000)


def invalidate_thousand(url: str) -> Subject:
    """1,000 entries."""
    return invalidating(url, 1_000)


def invalidate_one(url: str) -> Subject:
    """One entry."""
    return invalidating(url, 1)


def invalidating(url: str, entries: int) -> Subject:
    """Return a subject that invalidates the tag of so many entries, which are stored anew and read before each
    block, so that as many of them are near as there is room for.
    """
    cache = _cache(url, f"invalidating-{entries}", near=1_000)
    values = {f"rows:{number}": number for number in range(entries)}
    some = list(values)[:: max(1, entries // SAMPLE)]

    def prepare() -> None:
        alive = _alive(cache, some)
        assert not alive, f"{alive} of {len(some)} values outlived the invalidation of their tag"
        for part in _parts(values):
            cache.set_many({key: values[key] for key in part}, ttl=TTL, tags=[TAG])
        time.sleep(REST)
        alive = _alive(cache, some)
        assert alive == len(some), f"{alive} of {len(some)} values were stored"
        for _ in range(WARM):
            cache.invalidate_tags("another")

    def once() -> tuple[int, int]:
        prepare()
        before = _alive(cache, some)
        cache.invalidate_tags(TAG)
        return before, _alive(cache, some)

    def loop(n: int) -> None:
        for _ in range(n):
            cache.invalidate_tags(TAG)

    return Subject(loop, once, (len(some), 0), prepare=prepare)


def marked(url: str) -> Subject:
    """Return a subject that reads a value by a process that came after 100,000 invalidations of other tags."""
    writer = _cache(url, "marked")
    _mark(writer, MARKS // 2)
    writer.set(KEY, ROWS[KEY], ttl=TTL, tags=[TAG, "rows"])
    _mark(writer, MARKS // 2, MARKS // 2)
    return _reading(url, "marked")


def unmarked(url: str) -> Subject:
    """Return a subject that reads the same value where nothing was invalidated; its process did as much before."""
    _mark(_cache(url, "elsewhere"), MARKS)
    _cache(url, "unmarked").set(KEY, ROWS[KEY], ttl=TTL, tags=[TAG, "rows"])
    return _reading(url, "unmarked")


def hits_cold(url: str) -> Subject:
    """Return a subject whose values have a tag each; each block is another process's first look at them."""
    return _many(url, "hits-cold", tagged=True, cold=True)


def hits_warm(url: str) -> Subject:
    """Return a subject whose values have a tag each, all of which it knows."""
    return _many(url, "hits-warm", tagged=True, cold=False)


def hits_without(url: str) -> Subject:
    """Return a subject whose values have no tags; each block is another process's first look at them."""
    return _many(url, "hits-without", tagged=False, cold=True)


def _many(url: str, namespace: str, *, tagged: bool, cold: bool) -> Subject:
    writer, keys = _cache(url, namespace), [f"rows:{number}" for number in range(DISTINCT)]
    for number, key in enumerate(keys):
        writer.set(key, flat(number), ttl=TTL, tags=[f"row:{number}"] if tagged else [])
    _mark(writer, NEWER)
    readers = [_cache(url, namespace)]

    def prepare() -> None:
        if cold:
            readers[0].close()
            readers[0] = _cache(url, namespace)

    def loop(n: int) -> None:
        get = readers[0].get
        for key in keys[:n]:
            if get(key) is None:
                raise ValueError(f"{key} is gone")

    def once() -> Any:
        return [readers[0].get(key) for key in (keys[0], keys[-1])]

    return Subject(loop, once, [flat(0), flat(DISTINCT - 1)], prepare=prepare)


def miss_tagged(url: str) -> Subject:
    """Return a subject that loads keys nobody has asked for, with two tags each."""
    return _missing(_loading(_cache(url, "tagged"), [TAG, "rows"]))


def miss(url: str) -> Subject:
    """Return a subject that loads keys nobody has asked for."""
    return _missing(_loading(_cache(url, "untagged"), []))


def _loading(cache: Any, tags: list[str]) -> Callable[[int], Any]:
    return lambda number: cache.get_or_load(f"rows:{number}", lambda: row(number), ttl=TTL, tags=tags)


def dogpile_miss(url: str) -> Subject:
    """Return a subject that loads with `get_or_create` under a lock in the server."""
    region = peer("dogpile.cache").make_region()
    arguments = {"url": url, "redis_expiration_time": TTL * 2, "distributed_lock": True, "thread_local_lock": False}
    region.configure("dogpile.cache.redis", expiration_time=TTL, arguments=arguments)
    return _missing(lambda number: region.get_or_create(f"dogpile:{number}", lambda: row(number)))


def django_miss(url: str) -> Subject:
    """Return a subject that loads with `get_or_set`."""
    backend = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
    peer("django.conf").settings.configure(CACHES={"default": backend})
    cache = peer("django.core.cache").cache
    return _missing(lambda number: cache.get_or_set(f"django:{number}", lambda: row(number), timeout=TTL))


def _missing(load: Callable[[int], Any]) -> Subject:
    numbers = count(1)

    def loop(n: int) -> None:
        for number in islice(numbers, n):
            load(number)
        subject.loads = (subject.loads or 0) + n

    subject = Subject(loop, lambda: load(0), flat(0), loads=1)
    return subject


def _reading(url: str, namespace: str) -> Subject:
    cache = _cache(url, namespace)
    return Subject(calls(cache.get, KEY), lambda: cache.get(KEY), ROWS[KEY], lambda: hits(cache))


def _cache(url: str, namespace: str, near: int | None = None) -> Any:
    return peer("nearcache").Cache(url, namespace=namespace, near=near)


def _mark(cache: Any, number: int, first: int = 0) -> None:
    for part in _parts(range(first, first + number), MARKS_AT_ONCE):
        cache.invalidate_tags(*[f"mark:{number}" for number in part])


def _alive(cache: Any, keys: list[str]) -> int:
    return sum(len(cache.get_many(part)) for part in _parts(keys))


def _parts(items: Iterable[Any], size: int = AT_ONCE) -> Iterator[list[Any]]:
    everything = list(items)
    return (everything[at : at + size] for at in range(0, len(everything), size))
