"""Awaiting connections (being built)."""

from typing import Any

from nearcache.backends.redis.connect import Command, Route
from nearcache.backends.registry import BackendSpec


class AwaitingLink:
    """A way to the engine that awaits."""

    def __init__(self, route: Route, spec: BackendSpec) -> None:
        self._route = route

    async def open(self) -> None:
        """Connect ahead of the first use."""
        raise NotImplementedError

    async def execute(self, *commands: Command) -> list[Any]:
        """Send commands together."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give up every connection."""
        raise NotImplementedError
