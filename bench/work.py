"""What is cached: functions that count how often they ran, and the values they return.

A worker process holds one contender of one row, so one count is enough.
"""

import asyncio
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

TTL = 3600
"""Seconds. Every contender that has a TTL gets this one."""
TASKS = 100
KEYS_OF_A_TASK = 20
THREADS = 16
MANY = 100
PROCESSES = 4
READERS = 50
"""Threads or tasks of each process that read one key while it expires."""
BRIEF = 1
"""Seconds: the TTL of that key."""
LOAD = 0.05
"""Seconds that its load takes."""

Function = Callable[..., Any]


class Runs:
    """How often the functions of this module ran in this process."""

    count = 0
    began: ClassVar[list[tuple[int, float]]] = []
    """What the slow functions were called with, and when (monotonic, which all processes of a machine share)."""


@dataclass(frozen=True)
class User:
    """A result that nobody can change."""

    user_id: int
    name: str
    email: str
    active: bool = True


def square(n: int) -> int:
    """Return an int for an int."""
    Runs.count += 1
    return n * n


def greeting(name: str) -> str:
    """Return a text for a text."""
    Runs.count += 1
    return f"Hello, {name}!"


def user(user_id: int) -> User:
    """Return a frozen dataclass."""
    Runs.count += 1
    return User(user_id, "Ada Lovelace", "ada@example.com")


def row(row_id: int) -> dict[str, Any]:
    """Return a dict of 5 fields, none of which can be changed."""
    Runs.count += 1
    return flat(row_id)


def tree(row_id: int) -> dict[str, Any]:
    """Return a dict of 5 fields, two of which can be changed."""
    Runs.count += 1
    return deep(row_id)


def small(n: int) -> dict[str, Any]:
    """Return a dict of about 100 bytes of JSON, all of whose values are new objects."""
    Runs.count += 1
    return fresh(n)


def owned(self: object, user_id: int) -> int:
    """Return an int; made to be a method."""
    Runs.count += 1
    return user_id * 2


async def async_square(n: int) -> int:
    """Return an int for an int, in asyncio."""
    return square(n)


async def async_row(row_id: int) -> dict[str, Any]:
    """Return a dict of 5 fields, in asyncio."""
    return row(row_id)


def slow(row_id: int) -> dict[str, Any]:
    """Return a dict of 6 fields, one of which says when, after some time."""
    value = _stamped(row_id)
    time.sleep(LOAD)
    return value


async def async_slow(row_id: int) -> dict[str, Any]:
    """Do the same in asyncio."""
    value = _stamped(row_id)
    await asyncio.sleep(LOAD)
    return value


def _stamped(row_id: int) -> dict[str, Any]:
    now = time.monotonic()
    Runs.began.append((row_id, now))
    return flat(row_id) | {"loaded": now}


def flat(row_id: int) -> dict[str, Any]:
    """Return 5 fields, 200 bytes of JSON."""
    return {
        "id": row_id,
        "name": "Augusta Ada King, Countess of Lovelace",
        "email": "ada.lovelace@analytical-engine.example.com",
        "bio": "Wrote the first program, for a machine that was never built.",
        "score": 0.5,
    }


def deep(row_id: int) -> dict[str, Any]:
    """Return the same fields, two of them a list and a dict."""
    return flat(row_id) | {"bio": ["engines", "poetry"], "score": {"reads": 12, "stars": 4.5}}


def fresh(n: int) -> dict[str, Any]:
    """Return 4 fields, about 100 bytes of JSON."""
    return {"id": n, "name": f"user number {n:010d}", "email": f"user{n:010d}@mail.example.com", "score": n + 0.5}


@dataclass(frozen=True)
class Case:
    """One function, the template of its key, an argument and the answer."""

    function: Function
    template: str
    argument: Any
    expected: Any
    method: bool = False


@functools.cache
def cases() -> dict[str, Case]:
    """Return the functions that rows are about, by the row's case."""
    return {
        "int": Case(square, "squares:{n}", 7, 49),
        "str": Case(greeting, "greetings:{name}", "Grace", "Hello, Grace!"),
        "method": Case(owned, "owned:{user_id}", 7, 14, method=True),
        "dataclass": Case(user, "users:{user_id}", 7, User(7, "Ada Lovelace", "ada@example.com")),
        "dict": Case(row, "rows:{row_id}", 7, flat(7)),
        "nested": Case(tree, "trees:{row_id}", 7, deep(7)),
        "async-int": Case(async_square, "squares:{n}", 7, 49),
        "async-dict": Case(async_row, "rows:{row_id}", 7, flat(7)),
        "memory": Case(small, "smalls:{n}", 7, fresh(7)),
    }
