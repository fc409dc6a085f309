"""A walk over a declared type: its description (for the fingerprint), and what in it no codec knows."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from nearcache.codecs.annotations import ANYTHING, CONTAINERS, SCALARS, strip
from nearcache.codecs.names import name_of
from nearcache.codecs.structure import Field, fields_of, is_pydantic, is_structured

# Types that are not self-describing, but that msgspec knows as the types of fields.
_AS_FIELDS: Final = frozenset({bytearray})
_STABLE: Final = (bool, int, float, str, bytes, type(None))


@dataclass(slots=True)
class Survey:
    """What a walk over a declared type found."""

    unknown: list[str] = field(default_factory=list[str])
    """Names of types that are neither built in nor have declared fields."""
    pydantic: bool = False
    """Whether a pydantic model is among them."""
    enums: set[type[Enum]] = field(default_factory=set[type[Enum]])
    """The Enum classes among them."""
    _seen: set[type] = field(default_factory=set[type])

    def describe(self, annotation: Any) -> str:
        """Return a text that is the same in every process and changes when the type or anything in it changes."""
        stripped = strip(annotation)
        origin, arguments = get_origin(stripped), get_args(stripped)
        if origin is Literal:
            return f"Literal[{','.join(sorted(map(_describe_literal, arguments)))}]"
        if origin in (Union, UnionType):
            return f"({'|'.join(sorted(map(self.describe, arguments)))})"
        if origin is Callable:
            return self._describe_class(origin)  # no codec knows it, and its first argument is a list of types
        if origin is not None:
            return f"{self._describe_class(origin)}[{','.join(map(self._argument, arguments))}]"
        return self._describe_class(stripped)

    def _argument(self, annotation: Any) -> str:
        return "..." if annotation is Ellipsis else self.describe(annotation)

    def _describe_class(self, kind: Any) -> str:
        name = name_of(kind)
        if kind in ANYTHING or kind in SCALARS or kind in CONTAINERS or kind in _AS_FIELDS:
            return name
        if isinstance(kind, type):
            self.pydantic = self.pydantic or is_pydantic(kind)
            return self._describe_parts(kind, name)
        self.unknown.append(name)
        return name

    def _describe_parts(self, kind: Any, name: str) -> str:
        if issubclass(kind, Enum):
            self.enums.add(kind)
            return f"{name}<{','.join(_describe_member(*pair) for pair in kind.__members__.items())}>"
        if not is_structured(kind):
            self.unknown.append(name)
            return name
        if kind in self._seen:
            return name
        self._seen.add(kind)
        return f"{name}{_describe_config(kind)}({','.join(map(self._describe_field, fields_of(kind)))})"

    def _describe_field(self, declared: Field) -> str:
        optional = "" if declared.required else "?"
        return f"{declared.name}{optional}={declared.stored}:{self.describe(declared.annotation)}"


def fingerprint(description: str) -> bytes:
    """Return 8 bytes for a description of a type."""
    return hashlib.blake2b(description.encode(), digest_size=8).digest()


def _describe_config(kind: Any) -> str:
    if not hasattr(kind, "__struct_config__"):
        return ""
    config = kind.__struct_config__
    return f"<{config.tag_field},{config.tag},{config.array_like}>"


def _describe_literal(value: object) -> str:
    return f"{name_of(type(value))}.{value.name}" if isinstance(value, Enum) else f"{type(value).__name__}:{value!r}"


def _describe_member(name: str, member: Enum) -> str:
    value = member.value
    return f"{name}={value!r}" if type(value) in _STABLE else f"{name}={name_of(type(value))}"
