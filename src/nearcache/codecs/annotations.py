"""What a type annotation means: its parts, whether values of it describe themselves, whether a value conforms to it."""

import collections.abc as abc
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    is_typeddict,
)
from uuid import UUID

from nearcache.codecs.structure import fields_of

ANYTHING: Final = (Any, object)
SCALARS: Final = frozenset(
    {NoneType, bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID},
)
CONTAINERS: Final = frozenset(
    {
        *(list, tuple, set, frozenset, dict),
        *(abc.Container, abc.Iterable, abc.Collection, abc.Sequence, abc.MutableSequence),
        *(abc.Set, abc.MutableSet, abc.Mapping, abc.MutableMapping),
    }
)
_JSON_SCALARS: Final = frozenset({NoneType, bool, int, float, str})
_JSON_LISTS: Final = frozenset({list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable})
_JSON_OBJECTS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
_UNIONS: Final = (Union, UnionType)
_QUALIFIERS: Final = (Annotated, Required, NotRequired, Final, ClassVar)


def strip(annotation: Any) -> Any:
    """Return the annotation without what leaves a value's type alone: metadata, NewType, aliases, type variables."""
    if annotation is None:
        return NoneType
    if get_origin(annotation) in _QUALIFIERS:
        return strip(get_args(annotation)[0])
    if isinstance(annotation, TypeVar):
        return strip(annotation.__bound__) if annotation.__bound__ is not None else Any
    # NewType and `type X = ...` (Python 3.12)
    for attribute in ("__supertype__", "__value__"):
        if hasattr(annotation, attribute):
            return strip(getattr(annotation, attribute))
    return annotation


def members_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    stripped = strip(annotation)
    return get_args(stripped) if get_origin(stripped) in _UNIONS else (stripped,)


def without_none(annotation: Any) -> Any:
    """Return the annotation without None as a top-level alternative: None is stored the same way under every type."""
    members = [member for member in members_of(annotation) if strip(member) is not NoneType]
    if not members or len(members) == len(members_of(annotation)):
        return annotation
    return Union[tuple(members)]  # noqa: UP007 -- `|` cannot be applied to a list of members


def plain_enums(annotation: Any) -> frozenset[type[Enum]] | None:
    """Return the Enum classes in an annotation whose values describe themselves; None for any other annotation."""
    stripped = strip(annotation)
    origin, arguments = get_origin(stripped), get_args(stripped)
    if origin is Literal:
        return frozenset(type(value) for value in arguments if isinstance(value, Enum))
    if origin in _UNIONS or origin in CONTAINERS:
        return _all_plain(arguments)
    if isinstance(stripped, type) and issubclass(stripped, Enum):
        return frozenset({stripped})
    known = stripped in ANYTHING or stripped in SCALARS or stripped in CONTAINERS
    return frozenset() if known else None


def _all_plain(arguments: tuple[Any, ...]) -> frozenset[type[Enum]] | None:
    found: set[type[Enum]] = set()
    for argument in arguments:
        enums = frozenset[type[Enum]]() if argument is Ellipsis else plain_enums(argument)
        if enums is None:
            return None
        found |= enums
    return frozenset(found)


def is_json_plain(annotation: Any) -> bool:
    """Whether JSON gives values of this annotation back with their types, without knowing the annotation."""
    stripped = strip(annotation)
    origin, arguments = get_origin(stripped) or stripped, get_args(stripped)
    if origin is Literal:
        return all(type(value) in _JSON_SCALARS for value in arguments)
    if origin in _JSON_OBJECTS and arguments:
        return strip(arguments[0]) in (str, *ANYTHING) and is_json_plain(arguments[1])
    if origin in _UNIONS or origin in _JSON_LISTS:
        return all(map(is_json_plain, arguments))
    return origin in ANYTHING or origin in _JSON_SCALARS or origin in _JSON_OBJECTS


def conforms(value: object, annotation: Any) -> bool:
    """Whether the value has the annotated type as it is. An int passes for a float, as type checkers have it."""
    stripped = strip(annotation)
    origin, arguments = get_origin(stripped), get_args(stripped)
    if stripped in ANYTHING:
        return True
    if origin in _UNIONS:
        return any(conforms(value, member) for member in arguments)
    if origin is Literal:
        return any(type(value) is type(literal) and value == literal for literal in arguments)
    if is_typeddict(origin or stripped):
        return _has_fields(value, origin or stripped)
    return _is_instance(value, origin or stripped) and _contains(value, origin, arguments)


def _is_instance(value: object, kind: Any) -> bool:
    if kind is float:
        return type(value) in (float, int)
    if kind in SCALARS:
        return type(value) is kind
    return isinstance(kind, type) and isinstance(value, kind)


def _contains(value: object, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if origin not in CONTAINERS or not isinstance(value, abc.Collection):
        return True
    items = cast("abc.Collection[object]", value)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return len(items) == len(arguments) and all(map(conforms, items, arguments))
    if len(arguments) == 2 and origin is not tuple:
        pairs = cast("abc.Mapping[object, object]", value).items()
        return all(conforms(k, arguments[0]) and conforms(v, arguments[1]) for k, v in pairs)
    return all(conforms(item, arguments[0]) for item in items)


def _has_fields(value: object, kind: type) -> bool:
    if type(value) is not dict:
        return False
    items = cast("dict[str, object]", value)
    fields = {field.name: field for field in fields_of(kind)}
    required = {name for name, field in fields.items() if field.required}
    return required <= items.keys() <= fields.keys() and all(
        conforms(item, fields[name].annotation) for name, item in items.items()
    )
