"""The two flavours of a cache: `Cache` for threads, `AsyncCache` for asyncio."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ParamSpec, Self, TypeVar, Unpack, cast, overload

from nearcache import _blocks, decorate
from nearcache._base import BaseCache
from nearcache._core.entry import Entry
from nearcache._core.missing import MISS, Missing
from nearcache._core.queued import Queued
from nearcache._core.ttl import TTL
from nearcache._engine.health import Health
from nearcache._engine.warm import Pace, Warmed
from nearcache._io.blocking import drive
from nearcache._io.port import Flavour
from nearcache.decorate import AsyncCachedFunction, CachedFunction
from nearcache.decorate_many import cached_many
from nearcache.limits import AsyncLimiter, Limiter
from nearcache.locks import AsyncLocks, Locks
from nearcache.options import LoadOptions
from nearcache.sessions import AsyncSessions, Sessions

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
D = TypeVar("D")


class Cache(Locks, BaseCache):
    """A cache for threads: every method blocks until it is done."""

    _flavour: Flavour = "sync"

    @property
    def aio(self) -> "AsyncCache":
        """The async twin, over the same near tier."""
        return self._twin(AsyncCache)

    @property
    def sessions(self) -> Sessions:
        """The sessions of this namespace; raises `UnsupportedError` if the engine has none."""
        return Sessions(self._engine)

    def open(self) -> None:
        """Connect ahead of the first use; raises `BackendError` if the engine cannot be reached.

        With `near_snapshot` it also reads anew what the last process left, which takes some two seconds at most.
        """
        drive(self._engine.open())

    def close(self) -> None:
        """Give up every connection; may be called twice, and a later call connects again.

        With `near_snapshot` it leaves what is near for the next process.
        """
        drive(self._engine.close())

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def get(self, key: str, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    def get(self, key: str, default: D, *, type: type[T]) -> T | D: ...
    @overload
    def get(self, key: str, default: Any = None, *, type: Any = None) -> Any: ...
    def get(self, key: str, default: Any = None, *, type: Any = None) -> Any:
        """Return the value of a key, or the default.

        A value of another type than `type`, if one is given, counts as absent; so does every value while the engine
        cannot be reached. Raises `InvalidKeyError` for a key that breaks the rules. One round trip, none for a near
        hit.
        """
        value = self._lookup(key) if type is None else MISS
        return value if value is not MISS else drive(self._engine.reader.get(key, default, self._schema(type)))

    def get_entry(self, key: str) -> Entry | Missing:
        """Return the value with its age, remaining TTL and tier, or MISS, which is falsy.

        Asks the engine even for what is near. One round trip.
        """
        return drive(self._engine.reader.get_entry(key))

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values that exist, by key.

        Near values first, then one round trip for all the others.
        """
        return drive(self._engine.reader.get_many(keys))

    def set(self, key: str, value: Any, ttl: TTL = "default", tags: Iterable[str] = ()) -> None:
        """Store a value.

        Args:
            key: `<entity>:<id>[:<field>...]`.
            value: anything that comes back with the same type; else `CodecError`, and nothing is stored.
            ttl: how long it is fresh, at most: seconds, a timedelta, a text such as "5m", or a class of data.
            tags: names by which it can be invalidated together with others; see `invalidate_tags`.

        Raises:
            BackendError: the engine failed. If it may have stored the value all the same, the key is deleted as
            soon as the
                engine answers again.

        """
        drive(self._engine.writer.set(key, value, ttl, tags))

    def set_many(self, mapping: Mapping[str, Any], ttl: TTL = "default", tags: Iterable[str] = ()) -> None:
        """Store several values in one round trip.

        All are encoded before anything is sent. Raises like `set`.
        """
        drive(self._engine.writer.set_many(mapping, ttl, tags))

    def add(self, key: str, value: Any, ttl: TTL = "default") -> bool:
        """Store a value only if there is none, and tell whether it was stored.

        Atomic on the engine. Raises like `set`.
        """
        return drive(self._engine.writer.add(key, value, ttl))

    def delete(self, key: str) -> bool | Queued:
        """Remove a value and tell whether there was one.

        An engine that cannot be reached is told as soon as it answers again, and the call returns `Queued`, which is
        false: test with `isinstance`. Until then the key is a miss for this process, others may read the old value, and
        if this process ends the deletion is lost. Raises `BackendError` when the engine answers and refuses (it is
        full, a replica, or you lack the right); the deletion waits all the same. With `policy={"invalidate": "closed"}`
        an engine that cannot be reached raises, too.
        """
        return drive(self._engine.delete_one(key))

    def delete_many(self, keys: Iterable[str]) -> int | Queued:
        """Remove values in one round trip and return how many there were.

        `Queued` if the engine cannot be reached, and errors, as for `delete`.
        """
        return drive(self._engine.writer.delete(keys))

    def exists(self, key: str) -> bool:
        """Tell whether there is a fresh value.

        Always asks the engine; raises `BackendError` when it fails.
        """
        return drive(self._engine.reader.exists(key))

    def touch(self, key: str, ttl: TTL) -> bool:
        """Give a value a new TTL from now on, and tell whether there was one.

        Two round trips: the value is only touched if nobody replaced it between them.
        """
        return drive(self._engine.writer.touch(key, ttl))

    def ttl(self, key: str) -> float | Missing:
        """Return for how many seconds the value stays fresh, or MISS.

        Always asks the engine; raises `BackendError` when it fails.
        """
        return drive(self._engine.reader.ttl(key))

    def incr(self, key: str, by: int = 1, ttl: TTL = "default") -> int:
        """Add to an integer and return the sum.

        An absent or expired value counts as 0. The TTL, without jitter, is set when the value is created and not
        changed by later calls. Atomic on the engine. Raises `CodecError` for a value that is no integer, or a sum
        beyond 64 bits.
        """
        return drive(self._engine.writer.incr(key, by, ttl))

    def health(self) -> Health:
        """Return whether the engine answers, which loaders hang, and which settings nothing uses.

        It is true, and its `.ok` too, if the engine answers and no loader hangs. One round trip. Raises nothing: an
        engine that cannot be reached is a finding.
        """
        return drive(self._engine.health())

    def scan(self, prefix: str = "") -> Iterator[str]:
        """Iterate over the keys that start with a prefix; for tools, since the engine walks all its keys.

        A key may come twice, or not at all if it is written meanwhile.
        """
        return _blocks.pages(self._engine, prefix)

    def get_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        **options: Unpack[LoadOptions],
    ) -> T:
        """Return the cached value, or call the loader and cache what it returns.

        However many threads, tasks, processes and hosts ask at once, the loader runs once; it runs in the thread of
        the first, unless a timeout is given here. Its exception goes to all who wait in this process (in others, a
        `LoadFailedError` that names its type), and nothing is stored. Raises `LoaderTimeoutError` after waiting for
        `hard_timeout`. While the engine cannot be reached, the loader answers.

        `tags` may read the result, as in "team:{result.team_id}". The options are those of the whole cache, for this
        call: `none_ttl`, `stale`, `fail_safe`, `soft_timeout`, `hard_timeout`, `background`.
        """
        value, load = self._lookup(key), self._engine.get_or_load
        return cast(T, value if value is not MISS else drive(load(key, loader, ttl, tags, options)).get())

    def get_or_load_many(
        self,
        keys: Iterable[str],
        loader_many: Callable[[list[str]], Mapping[str, T]],
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        **options: Unpack[LoadOptions],
    ) -> dict[str, T]:
        """Return the cached values, and what the loader returns for all keys that nobody else is loading.

        One batch read, one call of `loader_many(keys)`, one store; what others load is waited for afterwards. A key
        that is not in the loader's dict is not in the result, and nothing is stored for it; return None for what is to
        be remembered as missing. Raises `BatchError` with `.values` and `.errors` by key if some loads fail: those of a
        call that raised, or those that the loader names by raising a `BatchError` itself.
        """
        return drive(self._engine.get_or_load_many(keys, loader_many, ttl, tags, options))

    def warm(
        self,
        keys: Iterable[str],
        loader_many: Callable[[list[str]], Mapping[str, Any]],
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        *,
        progress: Callable[[Warmed], object] | None = None,
        batch: int = 100,
        per_second: float | None = None,
        **options: Unpack[LoadOptions],
    ) -> Warmed:
        """Load what is not cached yet of many keys, before anybody asks for it, and tell what was done.

        Keys are taken as they come, from a list or from an iterator over millions, and looked up `batch` at a time (1
        to 10,000, default 100). What is fresh is skipped, so that a call that was interrupted may simply be made again.
        For the rest `loader_many(keys)` is called as in `get_or_load_many`, with the same `ttl`, `tags` and options,
        for at most `per_second` keys a second on average (default None: as fast as it goes). `progress(warmed)` is
        called after each batch; what it raises ends the call.

        A load that fails does not end it: the report counts it, and has the first 100 errors by key. Raises
        `BackendError` as soon as the engine does not answer, since nothing could be stored, `InvalidKeyError` at a key
        that breaks the rules, and `ConfigError` for a wrong `batch` or `per_second`.
        """
        pace = Pace(batch, per_second)
        return drive(self._engine.warm(keys, loader_many, ttl, tags, pace, progress, options))

    def invalidate_tags(self, *tags: str) -> Queued | None:
        """Invalidate every value that has one of these tags, in all processes.

        It takes the same time however many values there are, and wins against every load that began before. Other
        processes go on serving near copies for `staleness` seconds at most. `Queued` if the engine cannot be reached,
        and errors, as for `delete`; it is then repeated before this process sends anything else.
        """
        return drive(self._engine.writer.invalidate(tags, everything=False))

    def clear(self) -> Queued | None:
        """Invalidate every cached value of the namespace, in all processes.

        In one step, and with the same limits as `invalidate_tags`. The bytes stay in the engine until their time to
        live ends.
        """
        return drive(self._engine.writer.invalidate((), everything=True))

    def write_through(
        self, key: str, value: T, store: Callable[[T], T | None], ttl: TTL = "default", tags: Iterable[str] = ()
    ) -> T:
        """Write a value to its source with `store(value)`, then to the cache, and return what is cached.

        `store` may return another value to cache. If it raises, nothing changes in the cache. If the cache fails
        after that, the call succeeds all the same and the key is deleted as soon as the engine answers again. A value
        that cannot be cached raises `CodecError` before anything is written; if it is the one that `store` returned, it
        raises afterwards, and the key is deleted.
        """
        return cast(T, drive(self._engine.write_value_through(key, store, value, ttl, tags)).get())

    def transaction(self) -> AbstractContextManager[None]:
        """Send what the block changes in the cache when it has ended, and drop it if it raises.

        Put it around the transaction of the database: `with cache.transaction(), db.transaction(): ...`. Inside,
        `delete` (which returns False), `delete_many` (0), `invalidate_tags`, `clear`, `set` and `set_many` are
        collected, and so are `.invalidate` and `.set` of decorated functions; `add`, `touch` and `incr` act at once.
        `write_through` and functions decorated by `writes` write the source at once; their key is deleted in the end,
        also if the block raises, because the source may be no part of what was rolled back.

        What was set inside is read back inside; what was deleted or written is absent there, and after
        `invalidate_tags` or `clear` everything is. Loads are returned to their caller alone, and never stored: they may
        see what is not committed.

        The block is that of the running thread or task, and of the tasks started inside. An inner block joins the
        outermost; if it raises, only its own part is dropped. The end raises what the collected verbs would have
        raised; invalidations wait for an engine that cannot be reached, as they do outside, and the end says nothing of
        it. Nothing is sent if the process dies between the commit and the end of the block.
        """
        return _blocks.transaction(self._engine)

    def limiter(self, name: str, *limits: str, kind: str = "sliding", lease: int | None = None) -> Limiter:
        """Return a limiter, which counts how often identities do something, in all processes together.

        `limiter = cache.limiter("login", "5/minute", "100/day")`, then `limiter.hit(ip)`, which is true if this is
        allowed. All limits are decided in one atomic step; a call that one of them refuses counts for none.

        Args:
            name: like a key, but it may have one part. Limiters of one name, kind and limits count together.
            limits: a count and a period, "second", "minute", "hour", "day" or a duration from 1 second: "20/30s".
            kind: "sliding" (default) allows the count, 1,000 at most, in any period; "fixed" in each window, which
            begin at multiples of the period; "gcra" at once, and then as units come back, one by one.
            lease: how many units are taken from the engine at once, to be handed out by this process without asking it,
            within a second at most. For limits that are asked very often; some units may stay unused.

        Raises `UnsupportedError` if the engine cannot keep limits of this kind or period, and `ConfigError` for what is
        wrong with a limit, `kind` or `lease`.
        """
        return Limiter(self._engine, self._engine.limits.terms(name, limits, kind, lease))

    def cached(
        self,
        template: str,
        *,
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        ignore: Iterable[str] = (),
        returns: Any = None,
        **options: Unpack[LoadOptions],
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Decorate a function so that its results are cached.

        Args:
            template: the key, such as "users:{user_id}". Every parameter is in it, or in `ignore`; else `ConfigError`.
            ttl: how long results are fresh.
            tags: names by which results can be invalidated together, such as "team:{result.team_id}": placeholders are
            the function's parameters, and `result`. None results have no tags with `result`.
            ignore: parameters that do not change the result. Static methods are decorated below `@staticmethod`, class
            methods above `@classmethod`; type checkers understand only the former, called on the class.
            returns: the declared type of the results, where the return annotation does not say it.
            options: `none_ttl`, `stale`, `fail_safe`, `soft_timeout`, `hard_timeout` and `background`, as for the whole
            cache, whose they are where they are left out. With a `soft_timeout` or a `hard_timeout` of its own, the
            blocking function runs in another thread, so that your thread can leave it when it hangs.

        """
        plan = decorate.plan(self._engine, template, ttl, options, ignore)
        return lambda function: decorate.cached(self._engine, function, template, ignore, returns, plan, tags)

    def cached_many(
        self,
        template: str,
        *,
        each: str,
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        ignore: Iterable[str] = (),
        returns: Any = None,
        **options: Unpack[LoadOptions],
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function that takes a list and returns a dict, so that its results are cached one by one.

        `"users:{user_id}"` with `each="user_ids"` decorates `def load(user_ids: list[int]) -> dict[int, User]`, and
        shares its keys with a function decorated by `@cache.cached("users:{user_id}")`. The function gets only the
        items that are not cached and that nobody else is loading. It may leave items out of its dict: they are not in
        the result, and nothing is stored for them. The other arguments are those of `cached`, with `returns` for one
        item's value. Calls raise `BatchError` as `get_or_load_many` does.
        """
        plan = decorate.plan(self._engine, template, ttl, options, ignore)
        return lambda function: cached_many(self._engine, function, template, each, ignore, returns, plan, tags)

    def writes(
        self, template: str, *, ttl: TTL = "default", tags: Iterable[str] = (), returns: Any = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function that writes the source, so that its result is cached afterwards.

        The template names the parameters that make the key; what is written need not be in it. If the function raises,
        nothing changes in the cache. If it returns None, the key is invalidated.
        """
        plan = decorate.plan(self._engine, template, ttl, {})
        return lambda function: decorate.writes(self._engine, function, template, returns, plan, tags)


class AsyncCache(AsyncLocks, BaseCache):
    """A cache for asyncio: the twin of `Cache`, with the same names, arguments and meaning."""

    _flavour: Flavour = "async"

    @property
    def sync(self) -> Cache:
        """The blocking twin, over the same near tier."""
        return self._twin(Cache)

    @property
    def sessions(self) -> AsyncSessions:
        """The sessions of this namespace; raises `UnsupportedError` if the engine has none."""
        return AsyncSessions(self._engine)

    async def open(self) -> None:
        """Connect ahead of the first use; raises `BackendError` if the engine cannot be reached.

        With `near_snapshot` it also reads anew what the last process left, which takes some two seconds at most.
        """
        await self._engine.open()

    async def aclose(self) -> None:
        """Give up every connection; may be called twice, and a later call connects again.

        With `near_snapshot` it leaves what is near for the next process.
        """
        await self._engine.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @overload
    async def get(self, key: str, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    async def get(self, key: str, default: D, *, type: type[T]) -> T | D: ...
    @overload
    async def get(self, key: str, default: Any = None, *, type: Any = None) -> Any: ...
    async def get(self, key: str, default: Any = None, *, type: Any = None) -> Any:
        """Return the value of a key, or the default."""
        value = self._lookup(key) if type is None else MISS
        return value if value is not MISS else await self._engine.reader.get(key, default, self._schema(type))

    async def get_entry(self, key: str) -> Entry | Missing:
        """Return the value with its age, remaining TTL and tier, or MISS, which is falsy."""
        return await self._engine.reader.get_entry(key)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values that exist, by key."""
        return await self._engine.reader.get_many(keys)

    async def set(self, key: str, value: Any, ttl: TTL = "default", tags: Iterable[str] = ()) -> None:
        """Store a value."""
        await self._engine.writer.set(key, value, ttl, tags)

    async def set_many(self, mapping: Mapping[str, Any], ttl: TTL = "default", tags: Iterable[str] = ()) -> None:
        """Store several values in one round trip."""
        await self._engine.writer.set_many(mapping, ttl, tags)

    async def add(self, key: str, value: Any, ttl: TTL = "default") -> bool:
        """Store a value only if there is none, and tell whether it was stored."""
        return await self._engine.writer.add(key, value, ttl)

    async def delete(self, key: str) -> bool | Queued:
        """Remove a value and tell whether there was one."""
        return await self._engine.delete_one(key)

    async def delete_many(self, keys: Iterable[str]) -> int | Queued:
        """Remove values in one round trip and return how many there were."""
        return await self._engine.writer.delete(keys)

    async def exists(self, key: str) -> bool:
        """Tell whether there is a fresh value."""
        return await self._engine.reader.exists(key)

    async def touch(self, key: str, ttl: TTL) -> bool:
        """Give a value a new TTL from now on, and tell whether there was one."""
        return await self._engine.writer.touch(key, ttl)

    async def ttl(self, key: str) -> float | Missing:
        """Return for how many seconds the value stays fresh, or MISS."""
        return await self._engine.reader.ttl(key)

    async def incr(self, key: str, by: int = 1, ttl: TTL = "default") -> int:
        """Add to an integer and return the sum."""
        return await self._engine.writer.incr(key, by, ttl)

    async def health(self) -> Health:
        """Return whether the engine answers, which loaders hang, and which settings nothing uses."""
        return await self._engine.health()

    def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over the keys that start with a prefix; for tools, since the engine walks all its keys."""
        return _blocks.async_pages(self._engine, prefix)

    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        **options: Unpack[LoadOptions],
    ) -> T:
        """Return the cached value, or call the loader and cache what it returns."""
        value, load = self._lookup(key), self._engine.get_or_load
        return cast(T, value if value is not MISS else (await load(key, loader, ttl, tags, options)).get())

    async def get_or_load_many(
        self,
        keys: Iterable[str],
        loader_many: Callable[[list[str]], Awaitable[Mapping[str, T]]],
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        **options: Unpack[LoadOptions],
    ) -> dict[str, T]:
        """Return the cached values, and what the loader returns for all keys that nobody else is loading."""
        return await self._engine.get_or_load_many(keys, loader_many, ttl, tags, options)

    async def warm(
        self,
        keys: Iterable[str],
        loader_many: Callable[[list[str]], Awaitable[Mapping[str, Any]]],
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        *,
        progress: Callable[[Warmed], object] | None = None,
        batch: int = 100,
        per_second: float | None = None,
        **options: Unpack[LoadOptions],
    ) -> Warmed:
        """Load what is not cached yet of many keys, before anybody asks for it, and tell what was done."""
        pace = Pace(batch, per_second)
        return await self._engine.warm(keys, loader_many, ttl, tags, pace, progress, options)

    async def invalidate_tags(self, *tags: str) -> Queued | None:
        """Invalidate every value that has one of these tags, in all processes."""
        return await self._engine.writer.invalidate(tags, everything=False)

    async def clear(self) -> Queued | None:
        """Invalidate every cached value of the namespace, in all processes."""
        return await self._engine.writer.invalidate((), everything=True)

    async def write_through(
        self,
        key: str,
        value: T,
        store: Callable[[T], Awaitable[T | None]],
        ttl: TTL = "default",
        tags: Iterable[str] = (),
    ) -> T:
        """Write a value to its source with `store(value)`, then to the cache, and return what is cached."""
        return cast(T, (await self._engine.write_value_through(key, store, value, ttl, tags)).get())

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Send what the block changes in the cache when it has ended, and drop it if it raises."""
        return _blocks.async_transaction(self._engine)

    def limiter(self, name: str, *limits: str, kind: str = "sliding", lease: int | None = None) -> AsyncLimiter:
        """Return a limiter, which counts how often identities do something, in all processes together."""
        return AsyncLimiter(self._engine, self._engine.limits.terms(name, limits, kind, lease))

    def cached(
        self,
        template: str,
        *,
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        ignore: Iterable[str] = (),
        returns: Any = None,
        **options: Unpack[LoadOptions],
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], AsyncCachedFunction[P, R]]:
        """Decorate a function so that its results are cached."""
        plan = decorate.plan(self._engine, template, ttl, options, ignore)
        return lambda function: decorate.cached(self._engine, function, template, ignore, returns, plan, tags)

    def cached_many(
        self,
        template: str,
        *,
        each: str,
        ttl: TTL = "default",
        tags: Iterable[str] = (),
        ignore: Iterable[str] = (),
        returns: Any = None,
        **options: Unpack[LoadOptions],
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """Decorate a function that takes a list and returns a dict, so that its results are cached one by one."""
        plan = decorate.plan(self._engine, template, ttl, options, ignore)
        return lambda function: cached_many(self._engine, function, template, each, ignore, returns, plan, tags)

    def writes(
        self, template: str, *, ttl: TTL = "default", tags: Iterable[str] = (), returns: Any = None
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """Decorate a function that writes the source, so that its result is cached afterwards."""
        plan = decorate.plan(self._engine, template, ttl, {})
        return lambda function: decorate.writes(self._engine, function, template, returns, plan, tags)
