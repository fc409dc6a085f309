"""Decorated functions: `@cache.cached`, `@cache.writes`, and the verbs that hang on what they return."""

import functools
import inspect
import typing
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from nearcache._core.missing import MISS
from nearcache._core.outcome import Outcome
from nearcache._core.template import Template
from nearcache._core.ttl import TTL, parse_duration
from nearcache._engine.engine import Engine
from nearcache._engine.load import Plan
from nearcache._io.blocking import drive
from nearcache.errors import BatchError, ConfigError
from nearcache.options import Duration

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
A = TypeVar("A")
S = TypeVar("S")
Arg = TypeVar("Arg", contravariant=True)
Result = TypeVar("Result", covariant=True)

Ignore = Iterable[str] | None
"""Parameters that are left out of the key; None: all that the template does not name."""
PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Recipe:
    """How calls of one function become keys, and how its results are stored."""

    def __init__(self, function: Callable[..., Any], template: str, ignore: Ignore, plan: Plan) -> None:
        self.function: Callable[..., Any] = function
        self.plan: Plan = plan
        self.signature: inspect.Signature = inspect.signature(function)
        self._template = Template(template)
        self._names = list(self.signature.parameters)
        _check_parameters(function, self._names, self._template.fields, ignore)
        self._picks = [self._names.index(name) for name in self._template.fields]
        plain = all(parameter.kind in PLAIN for parameter in self.signature.parameters.values())
        self._positional = len(self._names) if plain else None

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of one call; arguments that do not fit the function raise `TypeError`."""
        if not kwargs and len(args) == self._positional:
            return self._template.render(*[args[pick] for pick in self._picks])
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return self._template.render(*[bound.arguments[name] for name in self._template.fields])


def _check_parameters(function: Callable[..., Any], names: list[str], used: tuple[str, ...], ignore: Ignore) -> None:
    where = function.__qualname__
    ignored = names if ignore is None else (ignore,) if isinstance(ignore, str) else tuple(ignore)
    if unknown := [name for name in (*used, *ignored) if name not in names]:
        raise ConfigError(f"{where} has no parameter {unknown[0]!r}; its parameters are: {', '.join(names) or 'none'}")
    if left_out := [name for name in names if name not in used and name not in ignored]:
        raise ConfigError(
            f"{where}: the parameter {left_out[0]!r} is not part of the key, so calls that differ in it would share "
            f"a value; put {{{left_out[0]}}} into the template, or name it in ignore=({left_out[0]!r},)"
        )


def return_type(function: Callable[..., Any], returns: object) -> object:
    """Return the declared type of a function's results: `returns`, else its annotation, else Any."""
    if returns is not None:
        return returns
    annotation = inspect.get_annotations(function).get("return", Any)
    if not isinstance(annotation, str):
        return type(None) if annotation is None else annotation
    return _evaluated(function, annotation)


def _evaluated(function: Callable[..., Any], annotation: str) -> object:
    def probe() -> None: ...

    probe.__annotations__ = {"return": annotation}
    plain = inspect.unwrap(function)
    names = inspect.getclosurevars(plain).nonlocals
    try:
        return typing.get_type_hints(probe, plain.__globals__, dict(names))["return"]
    except NameError as error:
        raise ConfigError(
            f"{function.__qualname__}: the return annotation {annotation!r} cannot be resolved ({error}); "
            "pass returns=..."
        ) from error


class _Takes(Protocol[Arg, Result]):
    """Something that can be called with one argument: what `many` gives one item each."""

    def __call__(self, item: Arg, /) -> Result: ...


class _Decorated(Generic[P, R]):
    """What decorated functions of both flavours have in common. `prefix` is the instance or class a method is bound
    to.
    """

    def __init__(self, recipe: Recipe, engine: Engine, call: Callable[..., Any], prefix: tuple[Any, ...] = ()) -> None:
        functools.update_wrapper(cast(Callable[..., Any], self), recipe.function)
        self._recipe = recipe
        self._engine = engine
        self._call = call
        self._prefix = prefix
        if prefix:
            parameters = list(recipe.signature.parameters.values())[len(prefix) :]
            self.__signature__: inspect.Signature = recipe.signature.replace(parameters=parameters)

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call, as every verb of the cache takes it."""
        return self._recipe.key((*self._prefix, *args), kwargs)

    def _loader(self, /, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(self._recipe.function, *self._prefix, *args, **kwargs)

    def _bound(self, instance: Any) -> Any:
        return type(self)(self._recipe, self._engine, self._call, (instance,))

    def batch(self, items: Iterable[Any]) -> tuple[dict[Any, str], Coroutine[Any, Any, dict[str, Outcome[Any]]]]:
        """Return the key of each item, and the work that brings the outcome of each key; what `many` is made of."""
        keys = {item: self._recipe.key((*self._prefix, item), {}) for item in items}
        loaders = {key: self._loader(item) for item, key in keys.items()}
        return keys, self._engine.loads.each(loaders, self._recipe.plan)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # the code object and the like, so that a coroutine function is known as one
            if name.startswith("_recipe"):
                raise AttributeError(name)
            return getattr(self._recipe.function, name)

    def __repr__(self) -> str:
        return f"<cached {self._recipe.function.__qualname__}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name: a bound method by way of its instance, a verb of a plain function by way of the function."""
        function = self._recipe.function
        if self._prefix:
            return getattr, (self._prefix[0], function.__name__)
        return function.__qualname__ if _in_class_body(function) else (attrgetter("key.__self__"), (self._call,))


class CachedFunction(_Decorated[P, R]):
    """A function whose results are cached; calling it reads the cache first and runs it only when there is no fresh
    value.
    """

    __wrapped__: Callable[P, R]

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the cached value, or load it."""
        result: R = self._call(*self._prefix, *args, **kwargs)
        return result

    @overload
    def __get__(self, instance: None, owner: type) -> "CachedFunction[P, R]": ...

    @overload
    def __get__(
        self: "CachedFunction[Concatenate[S, Q], R]", instance: S, owner: Any = None
    ) -> "CachedFunction[Q, R]": ...

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind a method to its instance or class."""
        return self if instance is None else self._bound(instance)

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the value of this call; tell whether there was one."""
        return drive(self._engine.delete_one(self.key(*args, **kwargs)))

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load now and replace what is cached."""
        work = self._engine.loads.refresh(self.key(*args, **kwargs), self._loader(*args, **kwargs), self._recipe.plan)
        return cast(R, drive(work).get())

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the cached value, or None; never loads."""
        return cast(R | None, drive(self._engine.reader.get(self.key(*args, **kwargs), None, self._recipe.plan.schema)))

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a value as if this call had returned it."""
        drive(self._engine.loads.put(self.key(*args, **kwargs), value, self._recipe.plan))

    def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function; neither read the cache nor store anything."""
        return cast(R, self._loader(*args, **kwargs)())

    def many(self: "_Takes[A, R]", items: Iterable[A]) -> dict[A, R]:
        """Return the results for many values of the first parameter; loads only what is missing.

        Raises `BatchError` with `.values` and `.errors` by item if some loads fail.
        """
        keys, work = cast(_Decorated[Any, Any], self).batch(items)
        return _gathered(keys, drive(work))


class AsyncCachedFunction(_Decorated[P, R]):
    """A coroutine function whose results are cached; the twin of `CachedFunction`."""

    __wrapped__: Callable[P, Coroutine[Any, Any, R]]

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Return the cached value, or load it."""
        return cast(Coroutine[Any, Any, R], self._call(*self._prefix, *args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type) -> "AsyncCachedFunction[P, R]": ...

    @overload
    def __get__(
        self: "AsyncCachedFunction[Concatenate[S, Q], R]", instance: S, owner: Any = None
    ) -> "AsyncCachedFunction[Q, R]": ...

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind a method to its instance or class."""
        return self if instance is None else self._bound(instance)

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the value of this call; tell whether there was one."""
        return await self._engine.delete_one(self.key(*args, **kwargs))

    async def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load now and replace what is cached."""
        key, loader = self.key(*args, **kwargs), self._loader(*args, **kwargs)
        return cast(R, (await self._engine.loads.refresh(key, loader, self._recipe.plan)).get())

    async def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the cached value, or None; never loads."""
        return cast(R | None, await self._engine.reader.get(self.key(*args, **kwargs), None, self._recipe.plan.schema))

    async def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a value as if this call had returned it."""
        await self._engine.loads.put(self.key(*args, **kwargs), value, self._recipe.plan)

    async def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function; neither read the cache nor store anything."""
        return cast(R, await self._loader(*args, **kwargs)())

    async def many(self: "_Takes[A, Coroutine[Any, Any, R]]", items: Iterable[A]) -> dict[A, R]:
        """Return the results for many values of the first parameter; loads only what is missing.

        They load side by side.
        """
        keys, work = cast(_Decorated[Any, Any], self).batch(items)
        return _gathered(keys, await work)


class _ClassMethod:
    """A class method that is bound as the function it holds says; since Python 3.13 `classmethod` does not ask it."""

    def __init__(self, function: Any) -> None:
        self.__func__: Any = function
        self.__wrapped__: Any = function

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self.__func__.__get__(type(instance) if owner is None else owner)


def _gathered(keys: dict[A, str], outcomes: dict[str, Outcome[Any]]) -> dict[A, Any]:
    errors = {item: error for item, key in keys.items() if (error := outcomes[key].error) is not None}
    values = {item: outcomes[key].get() for item, key in keys.items() if item not in errors}
    if not errors:
        return values
    first = next(iter(errors))
    what = (
        f"{len(errors)} of {len(keys)} loads failed, the first for {keys[first]!r} with {type(errors[first]).__name__}"
    )
    raise BatchError(what, values, errors) from errors[first]


# Decoration

METHODS = ("key", "invalidate", "refresh", "peek", "set", "bypass", "many")


def plan(template: object, ttl: TTL, none_ttl: TTL | None = None, hard_timeout: Duration | None = None) -> Plan:
    """Return how results are stored; a decorator that was not called has a function where its template should be."""
    if not isinstance(template, str):
        raise TypeError('the decorator needs a key template: @cache.cached("users:{user_id}")')
    bound = None if hard_timeout is None else parse_duration(hard_timeout, "hard_timeout")
    return Plan(ttl, none_ttl, None, bound)


def cached(engine: Engine, function: Any, template: str, ignore: Ignore, returns: object, plan: Plan) -> Any:
    """Return the decorated form of a function, of the engine's flavour."""
    if isinstance(function, staticmethod | classmethod):
        inner = cached(engine, cast(Any, function).__func__, template, ignore, returns, plan)
        return _ClassMethod(inner) if isinstance(function, classmethod) else staticmethod(inner)
    recipe = _recipe(engine, function, template, ignore, returns, plan)
    is_async = engine.io.flavour == "async"
    call = (_async_call if is_async else _sync_call)(recipe, engine)
    kind: Any = AsyncCachedFunction if is_async else CachedFunction
    decorated = kind(recipe, engine, call)
    if _in_class_body(function):
        return decorated
    for name in METHODS:
        setattr(call, name, getattr(decorated, name))
    return call


def writes(engine: Engine, function: Any, template: str, returns: object, plan: Plan) -> Any:
    """Return a function that writes the source and then the cache, of the engine's flavour.

    What is written is no part of the key, so its parameters need not be in the template.
    """
    if isinstance(function, staticmethod | classmethod):
        method = cast(Any, function)
        return type(method)(writes(engine, method.__func__, template, returns, plan))
    recipe = _recipe(engine, function, template, None, returns, plan)

    @functools.wraps(function)
    def write(*args: Any, **kwargs: Any) -> Any:
        source = functools.partial(function, *args, **kwargs)
        return drive(engine.write_through(recipe.key(args, kwargs), source, MISS, recipe.plan)).get()

    @functools.wraps(function)
    async def async_write(*args: Any, **kwargs: Any) -> Any:
        source = functools.partial(function, *args, **kwargs)
        return (await engine.write_through(recipe.key(args, kwargs), source, MISS, recipe.plan)).get()

    return async_write if engine.io.flavour == "async" else write


def _recipe(engine: Engine, function: Any, template: str, ignore: Ignore, returns: object, plan: Plan) -> Recipe:
    _check_function(engine, function)
    engine.core.exact(plan.ttl)
    if plan.none_ttl is not None:
        engine.core.exact(plan.none_ttl)
    schema = engine.core.codec.declare(return_type(function, returns))
    return Recipe(function, template, ignore, replace(plan, schema=schema))


def _check_function(engine: Engine, function: Any) -> None:
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise TypeError(f"only functions can be decorated, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} is a generator function: return a list instead")
    if (wrong := engine.io.refuse(function)) is not None:
        raise TypeError(f"{getattr(function, '__qualname__', function)} {wrong}")


def _in_class_body(function: Any) -> bool:
    outer = function.__qualname__.rpartition(".")[0]
    return outer != "" and not outer.endswith("<locals>")


def _sync_call(recipe: Recipe, engine: Engine) -> Callable[..., Any]:
    key_of, near, plan, function = recipe.key, engine.near_lookup(recipe.plan.schema), recipe.plan, recipe.function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        value = near(key)
        if value is not MISS:
            return value
        return drive(engine.loads.get_or_load(key, functools.partial(function, *args, **kwargs), plan)).get()

    return call


def _async_call(recipe: Recipe, engine: Engine) -> Callable[..., Any]:
    key_of, near, plan, function = recipe.key, engine.near_lookup(recipe.plan.schema), recipe.plan, recipe.function

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        value = near(key)
        if value is not MISS:
            return value
        return (await engine.loads.get_or_load(key, functools.partial(function, *args, **kwargs), plan)).get()

    return call
