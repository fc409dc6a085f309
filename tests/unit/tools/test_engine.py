"""The check of the engine room finds what it is for, and leaves plain coroutines alone."""

import ast
from textwrap import dedent

import pytest

from tools.engine import check, problems


def messages(source: str) -> list[str]:
    return [message for _, message in problems(ast.parse(dedent(source)))]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import asyncio", "imports asyncio"),
        ("import threading as t", "imports threading"),
        ("from asyncio import sleep", "imports asyncio"),
        ("from concurrent.futures import Future", "imports concurrent.futures"),
        ("async def pages():\n    yield 1", "async generator"),
        ("x = (await f(a) async for a in b)", "async generator"),
        ("async def f():\n    with self._lock:\n        await g()", "holds a lock"),
        ("async def f():\n    with self._lock:\n        if a:\n            b = await g()", "holds a lock"),
        ("async def f():\n    async with port.lock():\n        async with g(): pass", "holds a lock"),
        ("async def f():\n    with guard:\n        async for a in b: pass", "holds a lock"),
        ("def f():\n    lock.acquire()", "by hand"),
    ],
)
def test_what_the_engine_may_not_do_is_found(source: str, expected: str) -> None:
    assert any(expected in message for message in messages(source))


@pytest.mark.parametrize(
    "source",
    [
        "async def f():\n    with self._lock:\n        a = 1\n    await g()",
        "async def f():\n    with measured():\n        await g()",
        "async def f():\n    with lock:\n        async def later():\n            await g()\n    return later",
        "def pages():\n    yield 1",
        "async def f():\n    def pages():\n        yield 1\n    return pages()",
        "from nearcache._io.port import Port",
    ],
)
def test_what_the_engine_may_do_is_left_alone(source: str) -> None:
    assert messages(source) == []


def test_problems_name_file_and_line(tmp_path) -> None:
    (tmp_path / "bad.py").write_text("a = 1\nimport asyncio\n")
    (found,) = check(tmp_path)
    assert found.startswith(f"{tmp_path / 'bad.py'}:2: ")
