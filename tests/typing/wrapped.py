"""A decorated function goes where a plain one of its signature goes; read by type checkers, not run."""

from collections.abc import Awaitable, Callable
from typing import assert_type

from nearcache import AsyncCache, Cache

cache = Cache("memory://")
acache = AsyncCache("memory://")


def retry(function: Callable[[int], str]) -> Callable[[int], str]:
    """Stand for anybody's decorator."""
    return function


def retry_async(function: Callable[[int], Awaitable[str]]) -> Callable[[int], Awaitable[str]]:
    """Stand for anybody's decorator of coroutine functions."""
    return function


@retry
@cache.cached("names:{user_id}")
def name(user_id: int) -> str:
    """Load a name; the cache stands inside the other decorator."""
    return str(user_id)


@cache.cached("names:{user_id}")
@retry
def other_name(user_id: int) -> str:
    """Load a name; the cache stands outside the other decorator."""
    return str(user_id)


@retry_async
@acache.cached("names:{user_id}")
async def third_name(user_id: int) -> str:
    """Load a name, awaiting it."""
    return str(user_id)


assert_type(name(1), str)
assert_type(other_name(1), str)
