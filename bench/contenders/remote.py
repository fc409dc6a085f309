"""Values in a server, read and written by threads: near tiers off, each client over the same kind of socket."""

import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bench.contenders.near import hits
from bench.subject import Loop, Subject, calls, decoded_calls, peer
from bench.work import MANY, THREADS, TTL, flat

KEY = "rows:7"
KEYS = [f"rows:{number}" for number in range(MANY)]
ROWS = {key: flat(number) for number, key in enumerate(KEYS)}

Builder = Callable[[str], Subject]


def in_threads(loop: Loop) -> Loop:
    """Return the loop that shares the calls out to 16 threads."""

    def shared(n: int) -> None:
        threads = [threading.Thread(target=loop, args=(n // THREADS,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return shared


def threaded(builder: Builder) -> Builder:
    """Return a builder of the same subject, called by 16 threads."""

    def build(url: str) -> Subject:
        subject = builder(url)
        subject.loop = in_threads(subject.loop)
        return subject

    return build


# nearcache


def nearcache_get(url: str) -> Subject:
    """`Cache.get` with the near tier off."""
    cache = _nearcache(url)
    cache.set(KEY, ROWS[KEY], ttl=TTL)
    return Subject(calls(cache.get, KEY), lambda: cache.get(KEY), ROWS[KEY], lambda: hits(cache))


def nearcache_set(url: str) -> Subject:
    """`Cache.set`."""
    cache = _nearcache(url)

    def loop(n: int) -> None:
        store, value = cache.set, ROWS[KEY]
        for _ in range(n):
            store(KEY, value, TTL)

    return writing(loop, lambda: cache.get(KEY))


def nearcache_many(url: str) -> Subject:
    """`Cache.get_many` with the near tier off."""
    cache = _nearcache(url)
    cache.set_many(ROWS, ttl=TTL)
    return Subject(calls(cache.get_many, KEYS), lambda: cache.get_many(KEYS), ROWS, lambda: hits(cache), MANY)


def _nearcache(url: str) -> Any:
    return peer("nearcache").Cache(url, namespace="bench", near=None)


# redis-py


def redis_get(url: str) -> Subject:
    """`get` and `json.loads`: what programs without a cache library do."""
    client = peer("redis").Redis.from_url(url)
    client.set(f"redis:{KEY}", json.dumps(ROWS[KEY]), ex=TTL)
    return json_reading(client.get, f"redis:{KEY}")


def redis_set(url: str) -> Subject:
    """`json.dumps` and `set`."""
    client = peer("redis").Redis.from_url(url)

    def loop(n: int) -> None:
        store, encode, value = client.set, json.dumps, ROWS[KEY]
        for _ in range(n):
            store(KEY, encode(value), ex=TTL)

    return writing(loop, lambda: json.loads(client.get(KEY)))


def redis_many(url: str) -> Subject:
    """`mget`, and `json.loads` for each value."""
    client = peer("redis").Redis.from_url(url)
    client.mset({key: json.dumps(value) for key, value in ROWS.items()})

    def loop(n: int) -> None:
        read, decode = client.mget, json.loads
        for _ in range(n):
            {key: decode(raw) for key, raw in zip(KEYS, read(KEYS), strict=True)}

    return Subject(loop, lambda: dict(zip(KEYS, map(json.loads, client.mget(KEYS)), strict=True)), ROWS)


# dogpile.cache and django-redis, with the serializers they come with


def dogpile_get(url: str) -> Subject:
    """`CacheRegion.get` over Redis."""
    arguments = {"url": url, "redis_expiration_time": TTL * 2}
    region = peer("dogpile.cache").make_region()
    region.configure("dogpile.cache.redis", expiration_time=TTL, arguments=arguments)
    region.set(f"dogpile:{KEY}", ROWS[KEY])
    return _reading(region.get, f"dogpile:{KEY}")


def django_get(url: str) -> Subject:
    """`cache.get` of Django, with django-redis as its backend."""
    backend = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}
    peer("django.conf").settings.configure(CACHES={"default": backend})
    cache = peer("django.core.cache").caches["default"]
    cache.set(KEY, ROWS[KEY], timeout=TTL)
    # Programs write `cache.get`, which looks the backend up at each call; this spares it that.
    return _reading(cache.get, KEY)


# valkey-glide


def glide_get(url: str) -> Subject:
    """`get` and `json.loads`."""
    client = _glide(url)
    client.set(f"glide:{KEY}", json.dumps(ROWS[KEY]))
    return json_reading(client.get, f"glide:{KEY}")


def _glide(url: str) -> Any:
    glide, parts = peer("glide_sync"), urlsplit(url)
    address = (
        glide.NodeAddress(unix_socket_path=parts.path)
        if parts.scheme == "unix"
        else glide.NodeAddress(parts.hostname, parts.port)
    )
    return glide.GlideClient.create(glide.GlideClientConfiguration([address], request_timeout=5_000))


def _reading(get: Any, key: str) -> Subject:
    return Subject(calls(get, key), lambda: get(key), ROWS[KEY])


def json_reading(get: Any, key: str) -> Subject:
    """Return the subject that decodes what `get` returns."""
    return Subject(decoded_calls(get, key, json.loads), lambda: json.loads(get(key)), ROWS[KEY])


def writing(loop: Loop, read: Callable[[], Any]) -> Subject:
    """Return a subject that answers with what it has written."""

    def once() -> Any:
        loop(1)
        return read()

    return Subject(loop, once, ROWS[KEY])
