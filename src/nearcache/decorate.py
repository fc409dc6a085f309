"""Decorated functions: `@cache.cached`, `@cache.writes`, and the verbs that hang on what they return."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

from nearcache._blocks import async_lock, lock
from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._core.queued import Queued
from nearcache._core.ttl import TTL
from nearcache._engine.engine import Engine, gathered
from nearcache._engine.held import Claim
from nearcache._engine.loading import Loading, inside
from nearcache._engine.plan import Job, Plan
from nearcache._engine.plan import plan as resolved
from nearcache._hits import AWAITED, SPECIALISED, Load, Memo, Seek, by_key, by_key_awaited, take_on
from nearcache._io.blocking import drive
from nearcache._recipe import Ignore, Naming, Recipe, add_key, check_function, return_type
from nearcache.options import LoadOptions

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
A = TypeVar("A")
S = TypeVar("S")
Arg = TypeVar("Arg", contravariant=True)
Result = TypeVar("Result", covariant=True)


class _Takes(Protocol[Arg, Result]):
    """Something that can be called with one argument: what `many` gives one item each."""

    def __call__(self, item: Arg, /) -> Result: ...


if TYPE_CHECKING:

    class _Partial(Generic[P, R]):
        """`functools.partial`, whose own types say nothing of parameters."""

        func: Callable[..., Any]
        args: tuple[Any, ...]

        @classmethod
        def _made(cls, call: Callable[..., Any], *args: Any) -> Self: ...

else:

    class _Partial(functools.partial):
        _made = classmethod(functools.partial.__new__)


class _Decorated(_Partial[P, R]):
    """What decorated functions of both flavours have in common.

    It is a `functools.partial` because that is what a bound method is: what serves the calls, with the instance or
    class given. All that are bound from one share its attributes.
    """

    _recipe: Recipe
    _engine: Engine

    @classmethod
    def of(cls, recipe: Recipe, engine: Engine, call: Callable[..., Any]) -> Self:
        """Return the verbs of a function whose calls are served by `call`."""
        self = cls._made(call)
        functools.update_wrapper(cast(Callable[..., Any], self), recipe.function)
        self._recipe, self._engine = recipe, engine
        return self

    def _bound(self, instance: Any) -> Self:
        bound = self._made(self.func, instance)
        bound.__dict__ = self.__dict__
        return bound

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call, as every verb of the cache takes it."""
        return self._recipe.key((*self.args, *args), kwargs)

    def _job(self, /, *args: Any, **kwargs: Any) -> Job:
        return self._recipe.job((*self.args, *args), kwargs)

    def _put(self, value: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        recipe, args = self._recipe, (*self.args, *args)
        return self._engine.loads.put(recipe.key(args, kwargs), value, recipe.plan, recipe.tagger(args, kwargs))

    def _batch(self, items: Iterable[Any]) -> tuple[dict[Any, str], Coroutine[Any, Any, dict[str, Outcome[Any]]]]:
        """Return the key of each item, and the work that brings the outcome of each key; what `many` is made of."""
        keys: dict[Any, str] = {}
        jobs: dict[str, Job] = {}
        for item in items:
            key = self._recipe.key((*self.args, item), {})
            add_key(keys, item, key, self._recipe.function)
            jobs.setdefault(key, self._job(item))
        return keys, self._engine.batches.each(jobs, self._recipe.plan.schema)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # the code object and the like, so that a coroutine function is known as one
            if name == "__signature__":
                return self._signature()
            if name.startswith("_recipe"):
                raise AttributeError(name)
            return getattr(self._recipe.function, name)

    def _signature(self) -> inspect.Signature:
        parameters = list(self._recipe.signature.parameters.values())
        return self._recipe.signature.replace(parameters=parameters[len(self.args) :])

    def __eq__(self, other: object) -> bool:
        """Tell whether the other is the same function, bound to the same instance."""
        if not isinstance(other, _Decorated):
            return NotImplemented
        return self.func is other.func and list(map(id, self.args)) == list(map(id, other.args))

    def __hash__(self) -> int:
        return hash((self.func, *map(id, self.args)))

    def __repr__(self) -> str:
        return f"<cached {self._recipe.function.__qualname__}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name: a bound method by way of its instance, a verb of a plain function by way of the function."""
        function = self._recipe.function
        if self.args:
            return getattr, (self.args[0], function.__name__)
        return function.__qualname__ if _in_class_body(function) else (attrgetter("key.__self__"), (self.func,))


class CachedFunction(_Decorated[P, R]):
    """A function whose results are cached; calling it reads the cache first and runs it only when there is no fresh
    value.
    """

    __wrapped__: Callable[P, R]

    if TYPE_CHECKING:

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the cached value, or load it."""
            ...

    @overload
    def __get__(self, instance: None, owner: type) -> "CachedFunction[P, R]": ...

    @overload
    def __get__(
        self: "CachedFunction[Concatenate[S, Q], R]", instance: S, owner: Any = None
    ) -> "CachedFunction[Q, R]": ...

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind a method to its instance or class."""
        return self if instance is None else self._bound(instance)

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool | Queued:
        """Remove the value of this call; tell whether there was one.

        `Queued` if the engine cannot be reached: see `Cache.delete`.
        """
        return drive(self._engine.delete_one(self.key(*args, **kwargs)))

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load now and replace what is cached."""
        work = self._engine.loads.refresh(self.key(*args, **kwargs), self._job(*args, **kwargs))
        return cast(R, drive(work).get())

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the cached value, or None; never loads."""
        return cast(R | None, drive(self._engine.reader.peek(self.key(*args, **kwargs), self._recipe.plan.schema)))

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a value as if this call had returned it."""
        drive(self._put(value, *args, **kwargs))

    def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function; neither read the cache nor store anything."""
        with inside(Loading()):
            return cast(R, self._recipe.function(*self.args, *args, **kwargs))

    def many(self: "_Takes[A, R]", items: Iterable[A]) -> dict[A, R]:
        """Return the results for many values of the first parameter; loads only what is missing.

        Raises `BatchError` with `.values` and `.errors` by item if some loads fail.
        """
        keys, work = cast(_Decorated[Any, Any], self)._batch(items)  # noqa: SLF001 -- its own class
        return gathered(keys, drive(work))


class AsyncCachedFunction(_Decorated[P, R]):
    """A coroutine function whose results are cached; the twin of `CachedFunction`."""

    __wrapped__: Callable[P, Coroutine[Any, Any, R]]

    if TYPE_CHECKING:

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
            """Return the cached value, or load it."""
            ...

    @overload
    def __get__(self, instance: None, owner: type) -> "AsyncCachedFunction[P, R]": ...

    @overload
    def __get__(
        self: "AsyncCachedFunction[Concatenate[S, Q], R]", instance: S, owner: Any = None
    ) -> "AsyncCachedFunction[Q, R]": ...

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind a method to its instance or class."""
        return self if instance is None else self._bound(instance)

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool | Queued:
        """Remove the value of this call; tell whether there was one."""
        return await self._engine.delete_one(self.key(*args, **kwargs))

    async def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load now and replace what is cached."""
        work = self._engine.loads.refresh(self.key(*args, **kwargs), self._job(*args, **kwargs))
        return cast(R, (await work).get())

    async def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the cached value, or None; never loads."""
        return cast(R | None, await self._engine.reader.peek(self.key(*args, **kwargs), self._recipe.plan.schema))

    async def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a value as if this call had returned it."""
        await self._put(value, *args, **kwargs)

    async def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function; neither read the cache nor store anything."""
        with inside(Loading()):
            return cast(R, await self._recipe.function(*self.args, *args, **kwargs))

    async def many(self: "_Takes[A, Coroutine[Any, Any, R]]", items: Iterable[A]) -> dict[A, R]:
        """Return the results for many values of the first parameter; loads only what is missing.

        They load side by side.
        """
        keys, work = cast(_Decorated[Any, Any], self)._batch(items)  # noqa: SLF001 -- its own class
        return gathered(keys, await work)


class _ClassMethod:
    """A class method that is bound as the function it holds says; since Python 3.13 `classmethod` does not ask it."""

    def __init__(self, function: Any) -> None:
        self.__func__: Any = function
        self.__wrapped__: Any = function

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self.__func__.__get__(type(instance) if owner is None else owner)


# Decoration

METHODS = ("key", "invalidate", "refresh", "peek", "set", "bypass", "many")


def plan(engine: Engine, template: object, ttl: TTL, options: LoadOptions, ignore: Ignore = None) -> Plan:
    """Return how results are stored; a decorator that was not called has a function where its template should be.

    A function whose parameters are all in its key may be called again later; others may have been given something that
    is closed by then.
    """
    _check_called(template, '@cache.cached("users:{user_id}")')
    made = resolved(engine.core, ttl, options)
    return made if made.background is not None else replace(made, background=ignore is not None and not tuple(ignore))


def cached(
    engine: Engine, function: Any, template: str, ignore: Ignore, returns: object, plan: Plan, tags: Iterable[str] = ()
) -> Any:
    """Return the decorated form of a function, of the engine's flavour."""
    if isinstance(function, staticmethod | classmethod):
        inner = cached(engine, cast(Any, function).__func__, template, ignore, returns, plan, tags)
        return _ClassMethod(inner) if isinstance(function, classmethod) else staticmethod(inner)
    recipe = _recipe(engine, function, template, ignore, returns, plan, tags)
    call = functools.wraps(function)(_specialised(recipe, engine))
    kind: Any = AsyncCachedFunction if engine.io.flavour == "async" else CachedFunction
    decorated = kind.of(recipe, engine, call)
    if _in_class_body(function):
        return decorated
    for name in METHODS:
        setattr(call, name, getattr(decorated, name))
    return call


def writes(engine: Engine, function: Any, template: str, returns: object, plan: Plan, tags: Iterable[str] = ()) -> Any:
    """Return a function that writes the source and then the cache, of the engine's flavour.

    What is written is no part of the key, so its parameters need not be in the template.
    """
    if isinstance(function, staticmethod | classmethod):
        method = cast(Any, function)
        return type(method)(writes(engine, method.__func__, template, returns, plan, tags))
    recipe = _recipe(engine, function, template, None, returns, plan, tags)

    @functools.wraps(function)
    def write(*args: Any, **kwargs: Any) -> Any:
        source = functools.partial(function, *args, **kwargs)
        tag = recipe.tagger(args, kwargs)
        return drive(engine.write_through(recipe.key(args, kwargs), source, MISS, recipe.plan, tag)).get()

    @functools.wraps(function)
    async def async_write(*args: Any, **kwargs: Any) -> Any:
        source = functools.partial(function, *args, **kwargs)
        tag = recipe.tagger(args, kwargs)
        return (await engine.write_through(recipe.key(args, kwargs), source, MISS, recipe.plan, tag)).get()

    return async_write if engine.io.flavour == "async" else write


def exclusive(engine: Engine, template: str, terms: Callable[[str], Claim]) -> Callable[[Any], Any]:
    """Return the decorator of functions that run under the lock of their arguments, of the engine's flavour."""
    _check_called(template, '@cache.exclusive("payment:{order_id}")')
    return functools.partial(_exclusive, engine, template, terms)


def _exclusive(engine: Engine, template: str, terms: Callable[[str], Claim], function: Any) -> Any:
    if isinstance(function, staticmethod | classmethod):
        method = cast(Any, function)
        return type(method)(_exclusive(engine, template, terms, method.__func__))
    check_function(engine, function)
    naming, locks = Naming(function, template, None), engine.locks

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with lock(locks, terms(naming.key(args, kwargs))):
            return function(*args, **kwargs)

    @functools.wraps(function)
    async def async_run(*args: Any, **kwargs: Any) -> Any:
        async with async_lock(locks, terms(naming.key(args, kwargs))):
            return await function(*args, **kwargs)

    return async_run if engine.io.flavour == "async" else run


def _check_called(template: object, example: str) -> None:
    if not isinstance(template, str):
        raise TypeError(f"the decorator needs a key template: {example}")


def _recipe(
    engine: Engine, function: Any, template: str, ignore: Ignore, returns: object, plan: Plan, tags: Iterable[str]
) -> Recipe:
    check_function(engine, function)
    schema = engine.core.codec.declare(return_type(function, returns))
    return Recipe(engine.core, function, template, ignore, replace(plan, schema=schema), tags)


def _in_class_body(function: Any) -> bool:
    outer = function.__qualname__.rpartition(".")[0]
    return outer != "" and not outer.endswith("<locals>")


def _specialised(recipe: Recipe, engine: Engine) -> Callable[..., Any]:
    """Return the quickest function that serves the calls of a recipe, without its looks."""
    awaited, near = engine.io.flavour == "async", engine.core.near
    serve = (AWAITED if awaited else SPECIALISED).get(recipe.shape) if recipe.shape else None
    if serve is None:
        return (by_key_awaited if awaited else by_key)(_seek(recipe, engine, None), _load(recipe, engine))
    memo = Memo(near.hits.of(recipe.entity))
    call = serve(near, memo, _seek(recipe, engine, memo), _load(recipe, engine))
    take_on(call, recipe.function, recipe.signature)
    return call


def _seek(recipe: Recipe, engine: Engine, memo: Memo | None) -> Seek:
    near, key_of, schema, picks = engine.core.near, recipe.key, recipe.plan.schema, recipe.picks
    lookup = engine.near_lookup(schema)

    def seek(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        value = lookup(key)
        if memo is not None and value is not MISS:
            arguments = tuple(args[pick] for pick in picks)
            if memo.admits(*arguments):
                near.remember(memo.slots, arguments[0] if len(arguments) == 1 else arguments, key, schema)
        return value

    return seek


def _load(recipe: Recipe, engine: Engine) -> Load:
    def load(*args: Any, **kwargs: Any) -> Any:
        return engine.loads.get_or_load(recipe.key(args, kwargs), recipe.job(args, kwargs))

    return load
