"""The sizes of files and functions: short enough to be read at one look."""

import ast
from pathlib import Path
from statistics import median

from tools.source import PACKAGE, Function, body_of, functions, place, python_files

FILE_LINES = 400
BODY_LINES = 40
USUAL_BODY_LINES = 20
USUAL_SHARE = 0.9
MEDIAN_BODY_LINES = 5


def check(folder: Path = PACKAGE) -> list[str]:
    """Return what is too long, one line each."""
    found: list[str] = []
    sizes: list[int] = []
    for path in python_files(folder):
        tree = ast.parse(path.read_text())
        lines = code_lines(path.read_text(), tree)
        if lines > FILE_LINES:
            found.append(f"{place(path, tree)}: {lines} lines; at most {FILE_LINES}")
        for function in functions(tree):
            sizes.append(body_lines(function))
            if sizes[-1] > BODY_LINES:
                found.append(f"{place(path, function)}: {function.name} has {sizes[-1]} lines; at most {BODY_LINES}")
    return found + overall(sizes)


def code_lines(text: str, tree: ast.Module) -> int:
    """Count the lines of a file, without its docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)]
    return text.count("\n") - sum((node.end_lineno or 0) - node.lineno + 1 for node in nodes)


def body_lines(function: Function) -> int:
    """Count the lines of a function's body, without its docstring."""
    body = body_of(function)
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def overall(sizes: list[int]) -> list[str]:
    """Return what is wrong with the sizes of all bodies together."""
    found: list[str] = []
    if sizes and median(sizes) > MEDIAN_BODY_LINES:
        found.append(f"the median body has {median(sizes):g} lines; at most {MEDIAN_BODY_LINES}")
    usual = sum(size <= USUAL_BODY_LINES for size in sizes)
    if usual < USUAL_SHARE * len(sizes):
        found.append(f"only {usual} of {len(sizes)} bodies have at most {USUAL_BODY_LINES} lines; nine in ten should")
    return found
