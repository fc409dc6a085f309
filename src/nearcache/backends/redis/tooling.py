"""What tools ask: which keys there are, and what the engine says about itself; one server, or all of a cluster."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nearcache.backends.base import Check, Facts
from nearcache.backends.redis import checkup, facts
from nearcache.backends.redis.cluster import AnyCluster
from nearcache.backends.redis.errors import MISSHAPEN, unexpected
from nearcache.backends.several import checks_of_all, facts_of_all
from nearcache.backends.transport.dialect import Command

PAGE: Final = "500"
"""How many keys the engine looks at for one page of a scan."""

Single = Callable[[Command], Awaitable[Any]]
"""Sends one command and returns the reply."""


class Scan:
    """Keys of the namespace by SCAN; internal records have other names and are never listed."""

    def __init__(self, single: Single, prefix: str) -> None:
        self._single = single
        self._prefix = prefix

    async def page(self, cursor: str, prefix: str) -> tuple[str, list[str]]:
        """Return the next cursor and some keys; a key may come twice."""
        return await self._page(self._single, cursor, prefix)

    async def _page(self, single: Single, cursor: str, prefix: str) -> tuple[str, list[str]]:
        command = ("SCAN", cursor or "0", "MATCH", _literally(self._prefix + prefix) + "*", "COUNT", PAGE)
        reply = await single(command)
        try:
            following, names = reply
            return _next(following.decode()), [text for name in names if (text := self._key(name)) is not None]
        except MISSHAPEN:
            unexpected(reply, "SCAN")

    def _key(self, name: bytes) -> str | None:
        try:
            return name.decode().removeprefix(self._prefix)
        except UnicodeDecodeError:
            return None  # not a name that this library gives


class Admin:
    """Facts from INFO."""

    def __init__(self, single: Single, run: checkup.Run, namespace: str) -> None:
        self._single = single
        self._run = run
        self._namespace = namespace

    async def facts(self) -> Facts:
        """Ask for INFO; what a restricted server leaves out is None."""
        return facts.facts(facts.read(await self._single(("INFO",))))

    async def examine(self, *, forgets: bool) -> list[Check]:
        """Try what no other port shows, and judge what the engine says about itself."""
        return [*await checkup.rights(self._run, self._namespace), *await checkup.settings(self._single, forgets)]


class ClusterScan(Scan):
    """The same on each primary of a cluster in turn; a slot that moves meanwhile may be listed twice or not at all."""

    def __init__(self, link: AnyCluster, prefix: str) -> None:
        self._link = link
        self._prefix = prefix

    async def page(self, cursor: str, prefix: str) -> tuple[str, list[str]]:
        """Return the next cursor, which begins with the address of a node, and some keys."""
        address, _, inner = cursor.partition(" ")
        nodes = [node for node in await self._link.nodes() if node.endpoint.where >= address]
        if not nodes:
            return "", []
        node = nodes[0]
        following, keys = await self._page(self._link.of(node), inner if node.endpoint.where == address else "", prefix)
        if following:
            return f"{node.endpoint.where} {following}", keys
        return f"{nodes[1].endpoint.where} " if len(nodes) > 1 else "", keys


class ClusterAdmin(Admin):
    """The sums of what the primaries of a cluster say."""

    def __init__(self, link: AnyCluster, run: checkup.Run, namespace: str) -> None:
        self._link = link
        self._run = run
        self._namespace = namespace

    async def facts(self) -> Facts:
        """Ask every primary for INFO."""
        each = [facts.facts(facts.read(await self._link.of(node)(("INFO",)))) for node in await self._link.nodes()]
        return facts_of_all(each)

    async def examine(self, *, forgets: bool) -> list[Check]:
        """Do so, and ask every primary about itself."""
        nodes = await self._link.nodes()
        each = {node.endpoint.where: await checkup.settings(self._link.of(node), forgets) for node in nodes}
        return [*await checkup.rights(self._run, self._namespace), *checks_of_all(each)]


def _literally(text: str) -> str:
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def _next(cursor: str) -> str:
    return "" if cursor == "0" else cursor
