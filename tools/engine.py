"""What the engine room may not do: its coroutines run under a blocking driver too, and wait while user code runs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tools.source import PACKAGE, functions, own_nodes, place, python_files

BANNED_IMPORTS = frozenset({"asyncio", "threading", "concurrent", "socket", "anyio", "trio"})
LOCK = re.compile(r"lock|mutex|guard|condition", re.IGNORECASE)
WAITING = (ast.Await, ast.AsyncFor, ast.AsyncWith)


def check(folder: Path = PACKAGE / "_engine") -> list[str]:
    """Return what breaks the rules, one line each."""
    found = [(path, problem) for path in python_files(folder) for problem in problems(ast.parse(path.read_text()))]
    return [f"{place(path, node)}: {message}" for path, (node, message) in found]


def problems(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Walk one file's violations."""
    yield from _banned_imports(tree)
    yield from _async_generators(tree)
    yield from _locks_held(tree)


def _banned_imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        for name in _imported(node):
            if name.partition(".")[0] in BANNED_IMPORTS:
                yield node, f"imports {name}; effects go through the port of _io"


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _async_generators(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for function in functions(tree):
        yields = any(isinstance(node, ast.Yield) for node in own_nodes(function.body))
        if isinstance(function, ast.AsyncFunctionDef) and yields:
            yield function, f"{function.name} is an async generator; its clean-up would depend on the event loop"
    for node in ast.walk(tree):
        if isinstance(node, ast.GeneratorExp) and any(part.is_async for part in node.generators):
            yield node, "an async generator expression"


def _locks_held(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.With | ast.AsyncWith) and _takes_lock(node) and _waits(node.body):
            yield node, "holds a lock across an await; decide under the lock, wait outside"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "acquire":
            yield node, "acquires by hand; use `with`, so that this check can see what is held"


def _takes_lock(node: ast.With | ast.AsyncWith) -> bool:
    return any(LOCK.search(ast.unparse(item.context_expr)) for item in node.items)


def _waits(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, WAITING) for node in own_nodes(body))
