"""What type checkers have to say about a user's program; read by mypy and pyright, not run.

An `assert_type` names the exact type of an expression. A line that carries an ignore has to be an error: both checkers
complain about an ignore that nothing needs.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from nearcache import AsyncCache, Cache, Held, Queued, Session, Verdict, Warmed


@dataclass(frozen=True)
class User:
    """A value with a declared type."""

    id: int
    name: str


@dataclass(frozen=True)
class Fallback:
    """What a caller asks for instead of None."""


cache = Cache("memory://")
acache = AsyncCache("memory://")


@cache.cached("users:{user_id}", ttl="1h")
def get_user(user_id: int) -> User:
    """Load a user."""
    return User(user_id, "Ada")


@cache.cached("users:{user_id}:settings:{part}", ttl=timedelta(hours=1))
def get_settings(user_id: int, *, part: str = "all") -> dict[str, int] | None:
    """Load settings: two parameters, one of them by keyword, and None as a value."""
    return {part: user_id}


@acache.cached("users:{user_id}", ttl=60)
async def fetch_user(user_id: int) -> User:
    """Load a user, awaiting it."""
    return User(user_id, "Ada")


@cache.writes("users:{user.id}")
def save_user(user: User) -> User:
    """Write the source."""
    return user


@acache.writes("users:{user.id}")
async def store_user(user: User) -> User:
    """Write the source, awaiting it."""
    return user


class Repository:
    """Loaders as methods."""

    @cache.cached("users:{user_id}", ignore=("self",))
    def get(self, user_id: int) -> User:
        """Load a user."""
        return User(user_id, "Ada")

    @acache.cached("users:{user_id}", ignore=("self",))
    async def fetch(self, user_id: int) -> User:
        """Load a user, awaiting it."""
        return User(user_id, "Ada")

    @staticmethod
    @cache.cached("users:{user_id}")
    def read(user_id: int) -> User:
        """Load a user."""
        return User(user_id, "Ada")


def a_decorated_function_keeps_its_types() -> None:
    """Check a function."""
    assert_type(get_user(1), User)
    assert_type(get_user(user_id=1), User)
    assert_type(get_user.refresh(1), User)
    assert_type(get_user.bypass(1), User)
    assert_type(get_user.key(1), str)
    assert_type(get_user.many([1, 2]), dict[int, User])
    assert_type(get_user.__wrapped__(1), User)
    assert_type(Repository.read(1), User)
    assert_type(Repository.read.peek(1), User | None)
    assert_type(get_settings(1, part="mail"), dict[str, int] | None)
    assert_type(save_user(User(1, "Ada")), User)
    get_user.set(User(1, "Ada"), 1)
    assert_type(get_user.invalidate(1), bool | Queued)
    assert_type(get_user.peek(1), User | None)


def a_wrong_argument_of_a_decorated_function_is_an_error() -> None:
    """Check that the parameters are kept."""
    get_user("1")  # type: ignore[arg-type]
    get_user()  # type: ignore[call-arg]
    get_user(1, 2)  # type: ignore[call-arg]
    get_user(name=1)  # type: ignore[call-arg]
    get_settings(1, "mail")  # type: ignore[call-arg]
    get_user.refresh("1")  # type: ignore[arg-type]
    get_user.bypass("1")  # type: ignore[arg-type]
    get_user.key("1")  # type: ignore[arg-type]
    get_user.invalidate("1")  # type: ignore[arg-type]
    get_user.set("Ada", 1)  # type: ignore[arg-type]
    get_user.set(User(1, "Ada"), "1")  # type: ignore[arg-type]
    save_user(1)  # type: ignore[arg-type]
    get_user.invalidat(1)  # type: ignore[attr-defined]


def a_decorated_method_keeps_its_types(repository: Repository) -> None:
    """Check methods and static methods (type checkers do not see a decorated function through `classmethod`)."""
    assert_type(repository.get(1), User)
    assert_type(repository.get.refresh(1), User)
    assert_type(repository.get.key(1), str)
    assert_type(repository.get.many([1]), dict[int, User])
    assert_type(Repository.get(repository, 1), User)
    assert_type(Repository.read(1), User)
    repository.get("1")  # type: ignore[arg-type]
    repository.get()  # type: ignore[call-arg]
    repository.get.invalidate("1")  # type: ignore[arg-type]


async def a_decorated_coroutine_keeps_its_types(repository: Repository) -> None:
    """Check coroutines."""
    assert_type(await fetch_user(1), User)
    assert_type(await fetch_user.refresh(1), User)
    assert_type(await fetch_user.bypass(1), User)
    assert_type(await fetch_user.many([1, 2]), dict[int, User])
    assert_type(fetch_user.key(1), str)
    assert_type(await store_user(User(1, "Ada")), User)
    assert_type(await repository.fetch(1), User)
    assert_type(await repository.fetch.many([1]), dict[int, User])
    await fetch_user.set(User(1, "Ada"), 1)
    assert_type(await fetch_user.invalidate(1), bool | Queued)
    await fetch_user("1")  # type: ignore[arg-type]
    await repository.fetch("1")  # type: ignore[arg-type]
    await store_user(1)  # type: ignore[arg-type]


def a_decorator_takes_only_its_flavour() -> None:
    """Check decorators on functions of the other flavour."""

    @cache.cached("users:{user_id}", ttl=b"1h")  # type: ignore[arg-type]
    def wrong_ttl(user_id: int) -> int:
        return user_id

    @acache.cached("users:{user_id}")  # type: ignore[arg-type]
    def not_a_coroutine(user_id: int) -> int:
        return user_id


def verbs_have_exact_types() -> None:
    """Check the sync verbs."""
    assert_type(cache.get("users:1", type=User), User | None)
    assert_type(cache.get("users:1", Fallback(), type=User), User | Fallback)
    assert_type(cache.get("users:1", default=Fallback(), type=User), User | Fallback)
    assert_type(cache.get("users:1"), Any)
    assert_type(cache.get_many(["users:1"]), dict[str, Any])
    assert_type(cache.get_or_load("users:1", lambda: User(1, "Ada")), User)
    assert_type(cache.add("users:1", 1), bool)
    assert_type(cache.exists("users:1"), bool)
    assert_type(cache.touch("users:1", 60), bool)
    assert_type(cache.incr("visits:1", 2), int)
    assert_type(cache.key("users:{email}", email="a@example.org"), str)
    assert_type(cache.engine_key("users:1"), str)
    assert_type([key for key in cache.scan("users:")], list[str])  # noqa: C416  # the type of the iteration counts
    assert_type(cache.aio, AsyncCache)
    assert_type(Cache.from_env(), Cache)
    with cache as opened:
        assert_type(opened, Cache)
    with cache.disabled(), cache.bypass():
        pass


async def async_verbs_have_exact_types() -> None:
    """Check the async verbs."""

    async def load() -> User:
        return User(1, "Ada")

    assert_type(await acache.get("users:1", type=User), User | None)
    assert_type(await acache.get("users:1", Fallback(), type=User), User | Fallback)
    assert_type(await acache.get("users:1"), Any)
    assert_type(await acache.get_many(["users:1"]), dict[str, Any])
    assert_type(await acache.get_or_load("users:1", load), User)
    assert_type(await acache.add("users:1", 1), bool)
    assert_type(await acache.exists("users:1"), bool)
    assert_type(await acache.touch("users:1", 60), bool)
    assert_type(await acache.incr("visits:1", 2), int)
    assert_type(acache.engine_key("users:1"), str)
    assert_type([key async for key in acache.scan("users:")], list[str])
    assert_type(acache.sync, Cache)
    assert_type(AsyncCache.from_env(), AsyncCache)
    async with acache as opened:
        assert_type(opened, AsyncCache)


async def a_wrong_argument_of_a_verb_is_an_error() -> None:
    """Check that the verbs' parameters are typed."""
    cache.get(1)  # type: ignore[call-overload]
    cache.set("users:1", 1, ttl=b"5m")  # type: ignore[arg-type]
    cache.touch("users:1")  # type: ignore[call-arg]
    cache.incr("visits:1", "2")  # type: ignore[arg-type]
    Cache(1)  # type: ignore[arg-type]
    Cache(nothing=1)  # type: ignore[call-arg]
    await acache.get(1)  # type: ignore[call-overload]
    await acache.touch("users:1")  # type: ignore[call-arg]


async def an_invalidation_may_be_queued() -> None:
    """Check what invalidations return, and how the difference is told."""
    assert_type(cache.delete("a:1"), bool | Queued)
    assert_type(cache.delete_many(["a:1"]), int | Queued)
    assert_type(cache.invalidate_tags("t"), Queued | None)
    assert_type(cache.clear(), Queued | None)
    assert_type(await acache.delete("a:1"), bool | Queued)
    assert_type(await acache.delete_many(["a:1"]), int | Queued)
    assert_type(await acache.invalidate_tags("t"), Queued | None)
    assert_type(await acache.clear(), Queued | None)
    told = cache.delete("a:1")
    if not isinstance(told, Queued):
        assert_type(told, bool)


def a_policy_has_known_words() -> None:
    """Check the option policy."""
    Cache("memory://", policy={"read": "closed", "invalidate": "queue"})
    Cache("memory://", policy={"read": "queue"})  # type: ignore[arg-type]
    Cache("memory://", policy={"fill": "open"})  # type: ignore[arg-type]


async def warming_takes_the_loader_of_its_flavour() -> None:
    """Check `warm`."""

    def load(keys: list[str]) -> dict[str, int]:
        return dict.fromkeys(keys, 1)

    async def fetch(keys: list[str]) -> dict[str, int]:
        return load(keys)

    assert_type(cache.warm(["a:1"], load, progress=print, per_second=10), Warmed)
    assert_type(await acache.warm((key for key in ["a:1"]), fetch, ttl="1h", stale="1m"), Warmed)
    cache.warm(["a:1"], fetch)  # type: ignore[arg-type]
    await acache.warm(["a:1"], load)  # type: ignore[arg-type]


async def a_limiter_gives_verdicts() -> None:
    """Check `limiter`."""
    limiter = cache.limiter("login", "5/minute", "100/day", kind="gcra")
    assert_type(limiter.hit("203.0.113.7", cost=2), Verdict)
    assert_type(limiter.wait(7, timeout="1m").headers(), dict[str, str])
    assert_type(await acache.limiter("login", "5/minute").hit("203.0.113.7"), Verdict)


async def a_lock_is_a_block() -> None:
    """Check `lock`."""
    with cache.lock("payment:42", ttl="1m", wait=0, fair=True, on_loss=print, replicas=1) as held:
        assert_type(held, Held)
        assert_type(held.token, int)
        held.check()
    async with acache.lock("payment:42") as other:
        assert_type(other, Held)
    with cache.semaphore("exports", 3, ttl="1m", wait=0, fair=True, on_loss=print) as permit:
        assert_type(permit, Held)
    async with acache.semaphore("exports", 3) as another:
        assert_type(another, Held)
    with cache.rwlock("catalogue", ttl="1m", wait=0, on_loss=print).reading() as reader:
        assert_type(reader, Held)
    async with acache.rwlock("catalogue").writing() as writer:
        assert_type(writer, Held)
    cache.semaphore("exports")  # type: ignore[call-arg]
    with acache.lock("payment:42"):  # type: ignore[attr-defined]
        pass

    @cache.exclusive("payment:{order_id}", ttl="1m", wait=0)
    def pay(order_id: int, cents: int) -> str:
        return f"{order_id}: {cents}"

    @acache.exclusive("payment:{order_id}", fair=True)
    async def apay(order_id: int) -> str:
        return f"{order_id}"

    assert_type(pay(42, cents=7), str)
    assert_type(await apay(42), str)
    pay("42", 7)  # type: ignore[arg-type]
    await apay()  # type: ignore[call-arg]


async def sessions_are_mappings() -> None:
    """Check `sessions`."""
    session = cache.sessions.create({"user_id": 7}, ttl="1h", absolute="7d")
    assert_type(session, Session)
    assert_type(session.id, str)
    assert_type(cache.sessions.load(session.id), Session | None)
    assert_type(cache.sessions.rotate(session), Session)
    assert_type(cache.sessions.destroy(session.id), bool)
    assert_type(cache.sessions.of(7), list[dict[str, Any]])
    assert_type(cache.sessions.destroy_all(7, but=session), int)
    assert_type(await acache.sessions.create(), Session)
    assert_type(await acache.sessions.load(None), Session | None)
    await acache.sessions.save(session)
    session.id = "another"  # type: ignore[misc]
