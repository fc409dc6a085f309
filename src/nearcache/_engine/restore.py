"""Making the near tier warm again: what the last process left is read anew from the engine, many keys at a time.

Only what the engine answers is served. So what was left need not be right, and is not even looked at.
"""

import time
from collections.abc import Iterator
from typing import Final

from nearcache._engine.core import Core
from nearcache._engine.found import FAILED, UNVOUCHED
from nearcache._engine.read import Reader
from nearcache._io.port import Io, pause
from nearcache.errors import BackendError
from nearcache.near.store import Store

WITHIN: Final = 2.0
"""Seconds after which what is still to be read is left to those who will ask for it."""

ANNOUNCED_WITHIN: Final = 1.0
"""Seconds within which changes have to be announced: until they are, what is kept near lives only for a moment."""

LOOK_EVERY: Final = 0.002
"""Seconds between two looks whether they are."""

MOST_KEYS: Final = 500
MOST_BYTES: Final = 1_000_000
"""How much is asked for at once: not so much that it could not come in time."""


async def restore(core: Core, io: Io, reader: Reader) -> None:
    """Read what was left, the most useful first, as long as the engine answers and there is time."""
    began = time.monotonic()
    core.coherence.seek()
    while not core.coherence.tracked:
        if time.monotonic() > began + ANNOUNCED_WITHIN:
            return
        await pause(io, time.monotonic() + LOOK_EVERY)
    for keys in _batches(core.near):
        if time.monotonic() > began + WITHIN or not await _read(reader, keys):
            return


async def _read(reader: Reader, keys: list[str]) -> bool:
    """Read some keys and keep them near; False if the engine does not answer."""
    try:
        found = await reader.ask_many(keys, None)  # what a replica tells is kept for a moment only
    except BackendError:  # with policy={"read": "closed"}
        return False
    return not any(each is FAILED or each is UNVOUCHED for each in found.values())


def _batches(near: Store) -> Iterator[list[str]]:
    batch, size = list[str](), 0
    for key, left in near.left.copy().items():
        if batch and (len(batch) >= MOST_KEYS or size + len(left.raw) > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(key)
        size += len(left.raw)
    yield batch
