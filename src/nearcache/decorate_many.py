"""`@cache.cached_many`: a function that loads many items at once, whose results are cached one by one."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args, get_origin

from nearcache._core.template import Template
from nearcache._engine.batch import Batch
from nearcache._engine.engine import Engine, gathered
from nearcache._engine.plan import Plan
from nearcache._engine.tags import Tags
from nearcache._engine.write import Tagger
from nearcache._io.blocking import drive
from nearcache._recipe import add_key, bound_arguments, check_function, check_parameters, return_type, signature_of
from nearcache.errors import ConfigError


class ManyRecipe:
    """How a call of one batch function becomes keys, one for each item, and how the results are stored.

    `each` is the parameter that takes the items; the placeholder that is no parameter stands for one of them.
    """

    def __init__(
        self,
        engine: Engine,
        function: Callable[..., Any],
        template: str,
        each: str,
        ignore: Iterable[str],
        plan: Plan,
        tags: Iterable[str],
    ) -> None:
        self._function = function
        self._plan = plan
        self._signature = signature_of(function)
        self._template = Template(template)
        self._each = each
        parameters = list(self._signature.parameters)
        self._item = self._placeholder(parameters)
        others = [name for name in parameters if name != each]
        check_parameters(function, others, tuple(f for f in self._template.fields if f != self._item), ignore)
        self._tags = Tags(engine.core, tags, [self._item, *others])

    def _placeholder(self, parameters: list[str]) -> str:
        where, text = self._function.__qualname__, self._template.text
        if self._each not in parameters:
            raise ConfigError(f"{where} has no parameter {self._each!r} (each); it has: {', '.join(parameters)}")
        items = [field for field in self._template.fields if field not in parameters or field == self._each]
        if len(items) != 1 or items[0] == self._each:
            raise ConfigError(
                f"{where}: the key template {text!r} needs one placeholder that is no parameter, for an item of "
                f"{self._each!r}; it has {', '.join(items) or 'none'}"
            )
        return items[0]

    def batch(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[Any, str], Batch]:
        """Return the key of each item, and the batch that brings the outcome of each key."""
        arguments = bound_arguments(self._function, self._signature, args, kwargs)
        keys: dict[Any, str] = {}
        items: Any = arguments[self._each]
        if isinstance(items, str) or not isinstance(items, Iterable):
            kind = type(items).__name__
            raise TypeError(f"{self._function.__qualname__}(): {self._each} is a {kind}; it must be a list of items")
        for item in items:  # pyright: ignore[reportUnknownVariableType]  # whatever they are, they have texts
            add_key(keys, item, self._key(item, arguments), self._function)
        by_key = {key: item for item, key in keys.items()}

        @functools.wraps(self._function)
        def load(wanted: list[Any]) -> Any:
            return self._load(args, kwargs, wanted)

        return keys, Batch(by_key, load, self._plan, functools.partial(self._tagger, arguments))

    def _key(self, item: Any, arguments: Mapping[str, Any]) -> str:
        roots = [item if name == self._item else arguments[name] for name in self._template.fields]
        return self._template.render(*roots)

    def _tagger(self, arguments: Mapping[str, Any], item: Any) -> Tagger:
        return self._tags.tagger(lambda: {**arguments, self._item: item})

    def _load(self, args: tuple[Any, ...], kwargs: dict[str, Any], items: list[Any]) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        bound.arguments[self._each] = items
        return self._function(*bound.args, **bound.kwargs)


def cached_many(
    engine: Engine,
    function: Any,
    template: str,
    each: str,
    ignore: Iterable[str],
    returns: object,
    plan: Plan,
    tags: Iterable[str],
) -> Any:
    """Return the decorated form of a batch function, of the engine's flavour."""
    if isinstance(function, staticmethod):
        inner = cached_many(engine, function.__func__, template, each, ignore, returns, plan, tags)
        return staticmethod(inner)
    check_function(engine, function)
    schema = engine.core.codec.declare(_value_type(function, returns))
    recipe = ManyRecipe(engine, function, template, each, ignore, replace(plan, schema=schema), tags)

    @functools.wraps(function)
    def many(*args: Any, **kwargs: Any) -> dict[Any, Any]:
        keys, batch = recipe.batch(args, kwargs)
        return gathered(keys, drive(engine.batches.get_or_load(batch)))

    @functools.wraps(function)
    async def async_many(*args: Any, **kwargs: Any) -> dict[Any, Any]:
        keys, batch = recipe.batch(args, kwargs)
        return gathered(keys, await engine.batches.get_or_load(batch))

    return async_many if engine.io.flavour == "async" else many


def _value_type(function: Callable[..., Any], returns: object) -> object:
    """Return the declared type of one item's value: `returns`, else that of the values of the returned dict."""
    if returns is not None:
        return returns
    annotation = return_type(function, None)
    kind, arguments = get_origin(annotation), get_args(annotation)
    return arguments[1] if isinstance(kind, type) and issubclass(kind, Mapping) and len(arguments) == 2 else Any
