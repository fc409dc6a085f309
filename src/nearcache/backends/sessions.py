"""The port of sessions: how they are stored, changed and found."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from nearcache.errors import CodecError


class SessionRecord(msgspec.Struct, frozen=True, gc=False):
    """A session as it is stored: its fields by name; it lives `idle` seconds unused, and `left` seconds at most."""

    idle: float
    left: float
    fields: dict[bytes, bytes]


class SessionChange(msgspec.Struct, frozen=True, gc=False):
    """What to change in a session: fields with new values, and fields that are `gone`; the others stay as they are.

    Names and values of all of its fields may have `most` bytes together.
    """

    fields: dict[bytes, bytes]
    gone: list[bytes]
    most: int


def session_size(fields: Mapping[bytes, bytes]) -> int:
    """Return how many bytes the fields of a session have."""
    return sum(len(name) + len(value) for name, value in fields.items())


def session_too_large(most: int) -> CodecError:
    """Return the error for a session whose fields have too many bytes."""
    return CodecError(
        f"a session holds at most {most:,} bytes; keep what is large elsewhere, and its key in the session"
    )


class Sessions(Protocol):
    """Records of several fields, each of which can be changed alone, under names that are never used again.

    A session that was destroyed does not come back, whoever still has it and saves it. One that is not used for `idle`
    seconds is gone, and each is gone when it is as old as it may become. What an engine holds under the name of a
    session that is none counts as absent.
    """

    async def create(self, name: str, record: SessionRecord) -> None:
        """Begin a session under a new name."""
        ...

    async def load(self, names: Sequence[str], *, used: bool) -> list[SessionRecord | None]:
        """Read sessions, None for each that is not there; if they are `used`, they live on."""
        ...

    async def save(self, name: str, change: SessionChange) -> bool:
        """Change a session in one step, and let it live on; False if it is not there.

        Raises `CodecError` and changes nothing if it would be too large.
        """
        ...

    async def move(self, name: str, change: SessionChange, to: str) -> SessionRecord | None:
        """Do as `save` for the last time, and return the session, None if it is not there; see `save` for errors.

        From then on nobody finds it, until it is created under its new name.
        """
        ...

    async def leave(self, name: str, to: str) -> bool:
        """Remove a session that has moved; tell whether it was still there, or destroyed meanwhile."""
        ...

    async def destroy(self, names: Sequence[str]) -> int:
        """Remove sessions, also such that move; return how many there were."""
        ...

    async def absent(self, names: Sequence[str]) -> list[str]:
        """Tell under which names there is nothing; one that moves is something."""
        ...

    async def enlist(self, user: str, name: str, left: float, before: str = "") -> None:
        """Add a session that lives at most `left` seconds to those of a user, in the place of that named `before`."""
        ...

    async def names_of(self, user: str) -> list[str]:
        """Return the names of a user's sessions, and of some that are gone."""
        ...

    async def strike(self, user: str, names: Sequence[str]) -> None:
        """Take sessions from those of a user."""
        ...
