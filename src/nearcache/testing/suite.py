"""What every check of a backend stands on: building it in both flavours, and records to store."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Final

from nearcache._io.blocking import drive
from nearcache._io.port import Flavour
from nearcache.backends.base import Backend, Item
from nearcache.codecs.codec import COUNTER
from nearcache.codecs.envelope import NO_SCHEMA, Record, pack

HOUR: Final = 3600.0


def both(check: Callable[[Any, Backend], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """Make a test of a check: it runs in the sync flavour, then in the async one."""

    @functools.wraps(check)
    def test(self: "Suite") -> None:
        backend = self.build("sync")
        try:
            drive(self.prepared(check, backend))
        finally:
            drive(backend.close())
        asyncio.run(self.in_loop(check))

    del test.__dict__["__wrapped__"]  # pytest would take the check's arguments for fixtures
    return test


class Suite:
    """What every backend must do. Subclass it in a test module as `Test...` and say how yours is built.

    Each test runs in both flavours against `build(flavour)`. Backends are built over one engine, whose records of the
    backend's namespace are removed by the suite.
    """

    enveloped: bool = True
    """Whether the records have a header; False for values shared with other languages."""

    def build(self, flavour: Flavour) -> Backend:
        """Return a new backend of the given flavour."""
        raise NotImplementedError

    async def prepared(self, check: Callable[[Any, Backend], Coroutine[Any, Any, None]], backend: Backend) -> None:
        """Run one check on an empty engine."""
        await backend.open()
        await backend.delete([f"t:{n}" for n in range(20)])
        await check(self, backend)

    async def in_loop(self, check: Callable[[Any, Backend], Coroutine[Any, Any, None]]) -> None:
        """Run one check in an event loop."""
        backend = self.build("async")
        try:
            await self.prepared(check, backend)
        finally:
            await backend.close()

    def record(self, payload: bytes, fill_id: bytes = b"fill--id", codec: int = COUNTER, ttl: float = HOUR) -> bytes:
        """Return the bytes of a record."""
        if not self.enveloped:
            return payload
        return pack(Record(0, fill_id, 0, 1.0, ttl, ttl, 0.0, codec, NO_SCHEMA, payload=payload))

    def item(self, n: int, payload: bytes = b"1", ttl: float = HOUR) -> Item:
        """Return something to store."""
        return Item(f"t:{n}", self.record(payload), ttl)
