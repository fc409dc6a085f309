"""How calls of one function become keys, and how its results are stored: what all decorators begin with."""

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any

from nearcache._core.template import Template
from nearcache._engine.core import Core
from nearcache._engine.engine import Engine
from nearcache._engine.plan import Job, Plan
from nearcache._engine.tags import Tags
from nearcache._engine.write import Tagger
from nearcache._hits import Shape
from nearcache.errors import ConfigError, InvalidKeyError

Ignore = Iterable[str] | None
"""Parameters that are left out of the key; None: all that the template does not name."""
PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Naming:
    """How calls of one function become keys."""

    def __init__(self, function: Callable[..., Any], template: str, ignore: Ignore) -> None:
        self.function: Callable[..., Any] = function
        self.signature: inspect.Signature = signature_of(function)
        self._template = Template(template)
        self._names = list(self.signature.parameters)
        check_parameters(function, self._names, self._template.fields, ignore)
        self.picks: list[int] = [self._names.index(name) for name in self._template.fields]
        plain = all(parameter.kind in PLAIN for parameter in self.signature.parameters.values())
        self._positional = len(self._names) if plain else None
        self.entity: str = self._template.entity or ""

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of one call; arguments that do not fit the function raise `TypeError`."""
        if not kwargs and len(args) == self._positional:
            return self._template.render(*[args[pick] for pick in self.picks])
        arguments = self._arguments(args, kwargs)
        return self._template.render(*[arguments[name] for name in self._template.fields])

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return bound_arguments(self.function, self.signature, args, kwargs)


class Recipe(Naming):
    """How calls of one function become keys, and how its results are stored."""

    def __init__(
        self, core: Core, function: Callable[..., Any], template: str, ignore: Ignore, plan: Plan, tags: Iterable[str]
    ) -> None:
        super().__init__(function, template, ignore)
        self.plan: Plan = plan
        self._tags = Tags(core, tags, self._names)
        whole = self._positional is not None and self._template.direct and self.picks == sorted(self.picks)
        self.shape: Shape | None = (len(self._names), tuple(self.picks)) if whole and self.entity else None
        """What decides who serves a call; None where a key is not made of whole arguments in their places."""

    def job(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
        """Return the load of one call."""
        return Job(functools.partial(self.function, *args, **kwargs), self.plan, self.tagger(args, kwargs))

    def tagger(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tagger:
        """Return what makes the tags of the result of one call."""
        return self._tags.tagger(functools.partial(self._arguments, args, kwargs))


def bound_arguments(
    function: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by parameter, defaults included; those that do not fit raise `TypeError`."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{function.__qualname__}(): {error}") from None
    bound.apply_defaults()
    return bound.arguments


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the parameters of a function; raises `ConfigError` for one that does not tell."""
    try:
        return inspect.signature(function)
    except ValueError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise ConfigError(f"{name} does not tell its parameters; decorate one of your own that calls it") from error


def check_parameters(function: Callable[..., Any], names: list[str], used: tuple[str, ...], ignore: Ignore) -> None:
    """Raise `ConfigError` unless every parameter is used in the key or ignored."""
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


def check_function(engine: Engine, function: Any) -> None:
    """Raise `TypeError` for what is no function, or one of the other flavour."""
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise TypeError(f"only functions can be decorated, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} is a generator function: return a list instead")
    if (wrong := engine.io.refuse(function)) is not None:
        raise TypeError(f"{getattr(function, '__qualname__', function)} {wrong}")


def add_key(keys: dict[Any, str], item: Any, key: str, function: Callable[..., Any]) -> None:
    """Note the key of one item of many; raise `InvalidKeyError` for two that are equal and have different keys."""
    if keys.setdefault(item, key) != key:
        raise InvalidKeyError(
            f"{function.__qualname__} got two items that are equal and have different keys, {keys[item]!r} and "
            f"{key!r}; ask for them one by one"
        )
