"""The fields of a structured class, whichever library made it."""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints, is_typeddict

import msgspec

from nearcache.codecs.names import name_of
from nearcache.errors import CodecError


@dataclass(frozen=True, slots=True)
class Field:
    """One field as declared: `stored` is its name in stored bytes."""

    name: str
    stored: str
    annotation: object
    required: bool


def is_pydantic(kind: Any) -> bool:
    """Whether the class is a pydantic model or a pydantic dataclass."""
    return "pydantic" in sys.modules and hasattr(kind, "__pydantic_validator__")


def is_named_tuple(kind: Any) -> bool:
    """Whether the class was made by NamedTuple or namedtuple."""
    return tuple in kind.__mro__ and hasattr(kind, "_fields")


def is_structured(kind: Any) -> bool:
    """Whether the class has declared fields."""
    return (
        dataclasses.is_dataclass(kind)
        or hasattr(kind, "__struct_fields__")
        or is_named_tuple(kind)
        or is_typeddict(kind)
        or is_pydantic(kind)
    )


def field_names(kind: Any) -> tuple[str, ...]:
    """Return the names under which an instance of a structured class (no mapping) keeps its declared values."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if hasattr(kind, "__struct_fields__"):
        return tuple(kind.__struct_fields__)
    return tuple(kind._fields if is_named_tuple(kind) else kind.model_fields)


def fields_of(kind: Any) -> list[Field]:
    """Return the declared fields in order; raises `CodecError` naming the class if an annotation cannot be resolved."""
    try:
        return _fields(kind)
    except (NameError, TypeError) as error:
        raise CodecError(f"the annotations of {name_of(kind)} cannot be resolved: {error}") from error


def _fields(kind: Any) -> list[Field]:
    if is_pydantic(kind) and not dataclasses.is_dataclass(kind):
        return [
            Field(name, field.alias or name, field.annotation, field.is_required())
            for name, field in kind.model_fields.items()
        ]
    if hasattr(kind, "__struct_fields__"):
        struct: Any = kind
        return [Field(f.name, f.encode_name, f.type, f.required) for f in msgspec.structs.fields(struct)]
    hints = get_type_hints(kind, include_extras=True)
    return [Field(name, name, hints.get(name, Any), required) for name, required in _required(kind, hints).items()]


def _required(kind: Any, hints: Mapping[str, object]) -> dict[str, bool]:
    """Return the names of the fields, each with whether a value must be given."""
    if dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        return {f.name: f.default is missing and f.default_factory is missing for f in dataclasses.fields(kind)}
    if is_typeddict(kind):
        return {name: name in kind.__required_keys__ for name in hints}
    return {name: name not in kind._field_defaults for name in kind._fields}
