"""Which values can be handed to several callers because nobody can change them, and how to copy the others."""

from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from sys import getsizeof
from types import NoneType
from typing import Any, Final, cast
from uuid import UUID

import msgspec

from nearcache.codecs.structure import field_names, is_named_tuple, is_pydantic

Copier = Callable[[Any], Any]

_IMMUTABLE: Final = frozenset(
    {NoneType, bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID},
)
_ITEMS: Final = frozenset({tuple, frozenset})
_CONTAINERS: Final = frozenset({list, set, tuple, frozenset})
FIELDS: Final = 32
"""A dict of more keys is no record whose field names recur, so that its keys take room of their own."""

_copy_dict: Final[Copier] = dict[Any, Any].copy
_FLAT: Final[dict[type, Copier]] = {list: list[Any].copy, set: set[Any].copy, dict: _copy_dict}


def is_immutable(value: object) -> bool:
    """Whether nothing in the value can be changed by ordinary means; False where that is not known."""
    kind = type(value)
    if kind in _IMMUTABLE or isinstance(value, Enum):
        return True
    if kind in _ITEMS or is_named_tuple(kind):
        return all_immutable(value)  # type: ignore[arg-type]
    return _is_frozen(kind) and _has_only_fields(value) and all_immutable(_field_values(value))


def all_immutable(values: Iterable[object]) -> bool:
    """Whether all of the values are immutable."""
    return _IMMUTABLE.issuperset(map(type, values)) or all(map(is_immutable, values))


def flat_copier(value: Any) -> Copier | None:
    """Return how to copy a list, dict or set of immutable values: much faster than decoding; None for anything else."""
    copier = _FLAT.get(type(cast("object", value)))
    if copier is None or not all_immutable(value):
        return None
    return copier if copier is not _copy_dict or all_immutable(value.values()) else None


def size_of(state: object, payload: int) -> int:
    """Return how many bytes a near form takes: those of a container and what is in it, else those of its payload."""
    kind = type(state)
    if kind is dict:
        held = cast(dict[object, object], state)
        keys = held if len(held) > FIELDS else ()  # the names of a record's fields are shared with other records
        return getsizeof(held) + sum(map(getsizeof, held.values())) + sum(map(getsizeof, keys))
    if kind in _CONTAINERS:
        return getsizeof(state) + sum(map(getsizeof, cast(Iterable[object], state)))
    return payload


def _is_frozen(kind: Any) -> bool:
    if issubclass(kind, msgspec.Struct):
        return bool(kind.__struct_config__.frozen)
    # A subclass inherits __dataclass_params__ without being frozen itself.
    parameters: Any = kind.__dict__.get("__dataclass_params__")
    return bool(parameters and parameters.frozen) and not is_pydantic(kind)


def _has_only_fields(value: Any) -> bool:
    """Whether the instance holds nothing beside its fields, such as a cached property that could be changed."""
    return len(getattr(value, "__dict__", ())) <= len(field_names(type(value)))


def _field_values(value: Any) -> list[object]:
    return [getattr(value, name) for name in field_names(type(value))]
