"""Declared types: how values of one type are written, read and checked."""

import re
from collections.abc import Callable
from typing import Any, Final, Literal

from nearcache.codecs.annotations import conforms, is_json_plain, plain_enums, without_none
from nearcache.codecs.envelope import NO_SCHEMA
from nearcache.codecs.forms import Form, json_form, msgspec_forms, pydantic_forms
from nearcache.codecs.mismatch import SchemaMismatch
from nearcache.codecs.names import name_of
from nearcache.codecs.same import difference
from nearcache.codecs.survey import Survey, fingerprint
from nearcache.errors import CodecError

Dialect = Literal["envelope", "json", "pickle"]

# msgspec names the place of a fault, and sometimes the value; only the place may be repeated.
_PLACE: Final = re.compile(r" - at `\$?([^`]*)`$")


class Schema:
    """One declared type; None as a top-level alternative is left out, for None is stored the same way under every type.

    Raises `CodecError` naming the type if its values could not be stored.
    """

    __slots__ = ("annotation", "enums", "fingerprint", "forms", "name", "plain")

    def __init__(self, annotation: Any, dialect: Dialect = "envelope") -> None:
        self.annotation: Final[Any] = without_none(annotation)
        self.name: Final = name_of(self.annotation)
        enums = plain_enums(self.annotation)
        self.enums: Final = enums or frozenset()
        """Enum classes of which a plain type has members."""
        self.plain: Final = is_json_plain(self.annotation) if dialect == "json" else enums is not None
        """Whether values need no schema, because they describe themselves."""
        self.fingerprint: bytes = NO_SCHEMA
        self.forms: tuple[Form, ...] = ()
        if not self.plain:
            self._survey(dialect)

    def __repr__(self) -> str:
        return f"Schema({self.name})"

    def _survey(self, dialect: Dialect) -> None:
        survey = Survey()
        self.fingerprint = fingerprint(survey.describe(self.annotation))
        if dialect == "pickle":
            return  # pickle writes whatever it can; the fingerprint tells releases apart
        if survey.unknown and not survey.pydantic:
            raise CodecError(
                f"values of type {survey.unknown[0]} cannot be stored (declared type {self.name}){_ADVICE}"
            )
        try:
            self.forms = _forms(self.annotation, survey, dialect)
        except Exception as error:
            # whatever a library says about the declaration: there are no values yet that it could show
            raise CodecError(f"values of the declared type {self.name} cannot be stored: {error}") from error

    def encode(self, value: object) -> tuple[int, bytes]:
        """Return codec id and payload; raises `CodecError` unless the payload gives back the same value."""
        troubles: list[str] = []
        for form in self.forms:
            trouble, payload = _try(form, value)
            if trouble is None:
                return form.codec, payload
            troubles.append(trouble)
        raise CodecError(f"a value cannot be stored as {self.name}: {troubles[0]}")

    def decode(self, codec: int, payload: bytes | memoryview) -> Any:
        """Return the value that `encode` wrote; raises anything for other bytes."""
        return self.reader(codec)(payload)

    def reader(self, codec: int) -> Callable[[bytes | memoryview], Any]:
        """Return the function that reads payloads of this codec."""
        for form in self.forms:
            if form.codec == codec:
                return form.read
        raise CodecError(f"codec {codec} does not write values of type {self.name}")

    def check(self, value: Any) -> Any:
        """Return the value if it has this type (or is None), else raise `SchemaMismatch`."""
        if value is None or conforms(value, self.annotation):
            return value
        raise SchemaMismatch(f"the stored value is a {name_of(type(value))}, not a {self.name}")


_ADVICE: Final = "; use built-in types, dataclasses, msgspec Structs, NamedTuples, TypedDicts, Enums or pydantic models"


def _forms(annotation: Any, survey: Survey, dialect: Dialect) -> tuple[Form, ...]:
    if dialect == "json":
        return (json_form(annotation, survey.pydantic),)
    return pydantic_forms(annotation, survey.enums) if survey.pydantic else msgspec_forms(annotation)


def _try(form: Form, value: object) -> tuple[str | None, bytes]:
    """Write the value, read it again and compare: the only proof that covers validators, defaults and conversions."""
    try:
        payload = form.write(value)
        return difference(value, form.read(payload)), payload
    except Exception as error:  # noqa: BLE001 -- user code (properties, validators) runs in here
        return _reason(error), b""


def _reason(error: Exception) -> str:
    place = _PLACE.search(str(error))
    where = f" at {place[1]}" if place and place[1] else ""
    return f"it does not have that type{where} ({type(error).__name__})"
