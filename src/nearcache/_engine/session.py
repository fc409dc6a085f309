"""A session in the hands of the program: a mapping that knows what of it has changed."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final

from nearcache.backends.sessions import SessionChange, session_size, session_too_large
from nearcache.codecs import field
from nearcache.codecs.codec import Codec
from nearcache.codecs.same import difference
from nearcache.errors import CodecError

MOST: Final = 65_536
"""Bytes that the names and values of a session's fields have together at most, as they are stored."""


class Session(MutableMapping[str, Any]):
    """What is kept about one visitor: fields by name. It changes in the engine when it is saved.

    It belongs to one request: threads and tasks load their own.
    """

    __slots__ = ("_id", "_stored", "_values", "left")

    def __init__(self, id: str, values: dict[str, Any], stored: dict[bytes, bytes], left: float) -> None:
        self._id = id
        self._values = values
        self._stored = stored
        """The fields as they were loaded or saved last."""
        self.left: float = left
        """Seconds that it was to live at most, when it was loaded."""

    @property
    def id(self) -> str:
        """What the visitor's browser keeps, and nobody else may see."""
        return self._id

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<session with {len(self)} field{'s' * (len(self) != 1)}>"

    def changes(self, fields: "Fields") -> SessionChange:
        """Return which fields have changed; raises `CodecError` if one cannot be stored."""
        written, before = fields.written(self._values), self._stored
        changed = {
            name: raw
            for name, raw in written.items()
            if name not in before or not fields.are_same(before[name], raw, self._values[name.decode()])
        }
        return SessionChange(changed, [name for name in before if name not in written], MOST)

    def saved(self, change: SessionChange) -> None:
        """Take what was changed as saved."""
        for name in change.gone:
            del self._stored[name]
        self._stored.update(change.fields)

    def moved(self, id: str, left: float) -> None:
        """Take another id."""
        self._id, self.left = id, left


class Fields:
    """How the fields of sessions are written and read."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def written(self, values: Mapping[str, Any]) -> dict[bytes, bytes]:
        """Return fields as they are stored; raises `CodecError` for those that cannot be, or are too large together."""
        written = {_name(name): self._write(name, value) for name, value in values.items()}
        if session_size(written) > MOST:
            raise session_too_large(MOST)
        return written

    def read(self, stored: Mapping[bytes, bytes]) -> dict[str, Any]:
        """Return the values of stored fields; raises `CodecError` if one cannot be read."""
        try:
            return {name.decode(): self._read(raw) for name, raw in stored.items()}
        except UnicodeDecodeError:
            raise CodecError("the name of a stored field is no text") from None

    def are_same(self, before: bytes, now: bytes, value: Any) -> bool:
        """Tell whether a field is what it was: equal sets, among others, may be written in several ways."""
        return before == now or difference(self._read(before), value) is None

    def _write(self, name: str, value: Any) -> bytes:
        try:
            return field.pack(self._codec, self._codec.encode(value))
        except CodecError as error:
            raise CodecError(f"the session's field {name!r}: {error}") from None

    def _read(self, raw: bytes) -> Any:
        return self._codec.decode(field.unpack(self._codec, raw))


def _name(name: object) -> bytes:
    if not isinstance(name, str):
        raise CodecError(f"the names of a session's fields are str, not {type(name).__name__}")
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise CodecError("the name of a session's field is no text that can be stored") from None
