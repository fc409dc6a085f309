"""Sessions of five fields in a server: loaded, which makes them live on, and saved after one field has changed."""

import json
from collections.abc import Callable
from typing import Any

from bench.subject import Subject, calls, decoded_calls, peer
from bench.work import TTL, flat

FIELDS = flat(7)


def nearcache_load(url: str) -> Subject:
    """`cache.sessions.load`."""
    sessions, session = _nearcache(url)
    return Subject(calls(sessions.load, session.id), lambda: dict(sessions.load(session.id)), FIELDS)


def nearcache_save(url: str) -> Subject:
    """`cache.sessions.save`, which sends the field that has changed."""
    sessions, session = _nearcache(url)

    def loop(n: int) -> None:
        save = sessions.save
        for turn in range(n):
            session["id"] = turn
            save(session)

    return _saving(loop, lambda: dict(sessions.load(session.id)))


def redis_load(url: str) -> Subject:
    """`getex` and `json.loads`."""
    client = _redis(url)

    def load(key: str) -> Any:
        return client.getex(key, ex=TTL)

    return Subject(decoded_calls(load, "session:7", json.loads), lambda: json.loads(load("session:7")), FIELDS)


def redis_save(url: str) -> Subject:
    """`json.dumps` of all fields, and `set`."""
    client, session = _redis(url), dict(FIELDS)

    def loop(n: int) -> None:
        store, encode = client.set, json.dumps
        for turn in range(n):
            session["id"] = turn
            store("session:7", encode(session), ex=TTL)

    return _saving(loop, lambda: json.loads(client.get("session:7")))


def django_load(url: str) -> Subject:
    """Django's sessions in its cache, whose life a load does not prolong."""
    make, key = _django(url)

    def load(key: str) -> Any:
        return make(key).load()

    return Subject(calls(load, key), lambda: load(key), FIELDS)


def django_save(url: str) -> Subject:
    """`save`, which stores all fields."""
    make, key = _django(url)
    session = make(key)

    def loop(n: int) -> None:
        save = session.save
        for turn in range(n):
            session["id"] = turn
            save()

    return _saving(loop, lambda: make(key).load())


def _nearcache(url: str) -> tuple[Any, Any]:
    sessions = peer("nearcache").Cache(url, namespace="bench").sessions
    return sessions, sessions.create(FIELDS, ttl=TTL)


def _redis(url: str) -> Any:
    client = peer("redis").Redis.from_url(url)
    client.set("session:7", json.dumps(FIELDS), ex=TTL)
    return client


def _django(url: str) -> tuple[Callable[[str], Any], str]:
    backend = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}
    peer("django.conf").settings.configure(CACHES={"default": backend}, SESSION_COOKIE_AGE=TTL)
    store = peer("django.contrib.sessions.backends.cache").SessionStore
    session = store()
    session.update(FIELDS)
    session.create()
    session.update(FIELDS)
    session.save()
    return store, session.session_key


def _saving(loop: Callable[[int], None], load: Callable[[], Any]) -> Subject:
    def once() -> Any:
        loop(8)  # the last of which has the number that is in the fields
        return load()

    return Subject(loop, once, FIELDS)
