"""The rule of the faces: `X` and `AsyncX` of one file offer the same, in bodies of at most three statements.

Equal are the names, the parameters (names, kinds, defaults, annotations) and the first sentence of every docstring. A
sync annotation and its async counterpart count as equal: `Iterator` and `AsyncIterator`, `R` and `Awaitable[R]`.
What both inherit from a base in the same file is written once, so it only has to be there.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.source import PACKAGE, Function, body_of, place

FILES = ("cache", "decorate", "locks", "limits", "sessions", "messaging")
STATEMENTS = 3
# How an async name is called in the sync class.
COUNTERPARTS = {
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
# Each leads to the other class, which has no such name.
ONE_SIDED = frozenset({"aio", "sync"})
# These never touch the engine, or return at once something that will be awaited, entered or iterated.
PLAIN = frozenset(
    "key engine_key stats memo disabled bypass cached cached_many writes exclusive from_env lock semaphore rwlock "
    "transaction subscribe consume scan".split()
)


@dataclass(frozen=True)
class Face:
    """One class: its methods by their sync name (overloads make several of one name), those of its bases included."""

    node: ast.ClassDef
    methods: dict[str, list[Function]]


def check(folder: Path = PACKAGE) -> list[str]:
    """Return what breaks the rule, one line each."""
    paths = [folder / f"{name}.py" for name in FILES]
    found = [(path, problem) for path in paths if path.exists() for problem in problems(path.read_text())]
    return [f"{place(path, node)}: {message}" for path, (node, message) in found]


def problems(source: str) -> Iterator[tuple[ast.AST, str]]:
    """Walk one file's violations."""
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    for name, node in classes.items():
        if f"Async{name}" in classes:
            yield from compare(_face(node, classes), _face(classes[f"Async{name}"], classes))


def compare(sync: Face, twin: Face) -> Iterator[tuple[ast.AST, str]]:
    """Walk the differences between two faces, and what is too long in either."""
    for face, other in ((sync, twin), (twin, sync)):
        yield from _too_long(face)
        for name in face.methods.keys() - other.methods.keys():
            if _public(name) and name not in ONE_SIDED:
                yield face.methods[name][0], f"{other.node.name} has no {name}"
    for name in sync.methods.keys() & twin.methods.keys():
        if _public(name):
            yield from _compare_method(name, sync.methods[name], twin.methods[name])


def _face(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Face:
    methods: dict[str, list[Function]] = {}
    for base in node.bases:
        parent = classes.get(ast.unparse(base).partition("[")[0])
        methods |= _face(parent, classes).methods if parent else {}
    own: dict[str, list[Function]] = {}
    for member in node.body:
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
            own.setdefault(COUNTERPARTS.get(member.name, member.name), []).append(member)
    return Face(node, methods | own)


def _public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


def _too_long(face: Face) -> Iterator[tuple[ast.AST, str]]:
    own = [member for member in face.node.body if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in own:
        count = sum(isinstance(node, ast.stmt) for line in body_of(function) for node in ast.walk(line))
        if count > STATEMENTS:
            yield function, f"{face.node.name}.{function.name} has {count} statements; at most {STATEMENTS}"


def _compare_method(name: str, sync: list[Function], twin: list[Function]) -> Iterator[tuple[ast.AST, str]]:
    if len(sync) != len(twin):
        yield twin[-1], f"{name} has {len(twin)} overloads here, {len(sync)} in the sync class"
    for one, other in zip(sync, twin, strict=False):
        if one is not other:
            yield from _compare_signature(name, one, other)
    if sync[-1] is not twin[-1]:
        yield from _compare_flavour(name, sync[-1], twin[-1])
        yield from _compare_docstring(name, sync[-1], twin[-1])


def _compare_signature(name: str, sync: Function, twin: Function) -> Iterator[tuple[ast.AST, str]]:
    expected, actual = signature(sync), signature(twin)
    if expected != actual:
        yield twin, f"{name} differs: {actual} here, {expected} in the sync class"


def signature(function: Function) -> str:
    """Return parameters and result as text, async names replaced by sync ones."""
    returns = ast.unparse(function.returns) if function.returns else ""
    return in_sync_words(f"({ast.unparse(function.args)}) -> {returns}")


def in_sync_words(text: str) -> str:
    """Replace what is async in an annotation by what it is called in the sync class.

    >>> in_sync_words("Callable[[], Awaitable[list[V]]] | AsyncIterator[AsyncCache]")
    'Callable[[], list[V]] | Iterator[Cache]'
    """
    text = re.sub(r"\b(_|Abstract)?Async(?=[A-Z])", r"\1", text.replace("'", ""))
    while match := re.search(r"\b(Awaitable|Coroutine)\[", text):
        inside, rest = _split_bracket(text[match.end() :])
        text = text[: match.start()] + re.sub(r"^Any, Any, ", "", inside) + rest
    return text


def _split_bracket(text: str) -> tuple[str, str]:
    depth = 1
    for index, letter in enumerate(text):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth == 0:
            return text[:index], text[index + 1 :]
    raise ValueError(f"no closing bracket in {text!r}")


def _compare_flavour(name: str, sync: Function, twin: Function) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(sync, ast.AsyncFunctionDef):
        yield sync, f"{name} is async in the sync class"
    if name.startswith("__") or name in PLAIN or _is_property(sync):
        return
    if isinstance(twin, ast.FunctionDef) and "Async" not in ast.unparse(twin.returns or ast.Constant(None)):
        yield twin, f"{name} may touch the engine, so it is `async def`"


def _is_property(function: Function) -> bool:
    return any(ast.unparse(decorator).endswith("property") for decorator in function.decorator_list)


def _compare_docstring(name: str, sync: Function, twin: Function) -> Iterator[tuple[ast.AST, str]]:
    expected, actual = ast.get_docstring(sync) or "", ast.get_docstring(twin) or ""
    if not name.startswith("__") and not (expected and actual):
        yield (sync if not expected else twin), f"{name} has no docstring"
    elif first_sentence(expected) != first_sentence(actual):
        yield twin, f"the docstring of {name} begins differently in the sync class: {first_sentence(expected)!r}"
    elif len(actual) > len(expected):
        yield twin, f"the docstring of {name} says more than that of the sync class; the long text stands there"


def first_sentence(docstring: str) -> str:
    """Return the first sentence, on one line and in the words of the sync class.

    >>> first_sentence("Close the AsyncCache. May be called twice.")
    'Close the Cache.'
    """
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return in_sync_words(re.split(r"(?<=\.)\s", paragraph)[0])
