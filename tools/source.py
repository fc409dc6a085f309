"""Reading Python source: what the checks of this folder share."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "nearcache"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(folder: Path) -> list[Path]:
    """Return the Python files below a folder (none if it does not exist), in a stable order."""
    return sorted(folder.rglob("*.py"))


def place(path: Path, node: ast.AST) -> str:
    """Return `file:line`, as editors understand it."""
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return f"{shown}:{getattr(node, 'lineno', 1)}"


def body_of(function: Function) -> list[ast.stmt]:
    """Return a function's statements without its docstring."""
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def own_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Walk what some statements contain, but not into functions and classes defined there."""
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def functions(tree: ast.AST) -> Iterator[Function]:
    """Walk all functions and methods of a tree, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
