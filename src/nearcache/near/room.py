"""How much room a store has, and how much of it an entry takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ENTRY_OVERHEAD: Final = 530
"""Bytes per entry beside its key and value (CPython 3.11, measured): objects, dictionaries, trials, remembered keys and
arguments, half of the entries being remembered by a decorated function."""

TAG_OVERHEAD: Final = 350
"""Bytes for each tag of an entry: its text, its place in the index, and the index's own set."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a store may hold; None is no limit."""

    entries: int | None = None
    bytes: int | None = None


def footprint(key: str, size: int, tags: Iterable[str] = ()) -> int:
    """Return the bytes that an entry takes whose value and record take `size`."""
    return ENTRY_OVERHEAD + len(key) + size + sum([TAG_OVERHEAD + len(tag) for tag in tags])
