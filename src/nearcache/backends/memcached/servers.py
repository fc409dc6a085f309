"""The way to several Memcached servers: connections to each, and what is known of those that do not answer."""

import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from nearcache._core.outage import Outage
from nearcache._io.port import Flavour
from nearcache.backends.base import LostConnection, is_silence
from nearcache.backends.memcached import dialect
from nearcache.backends.memcached.connect import Endpoint, Place
from nearcache.backends.memcached.registers import Heard, Order
from nearcache.backends.registry import BackendSpec
from nearcache.backends.transport.aio import AwaitingLink
from nearcache.backends.transport.blocking import BlockingLink
from nearcache.backends.transport.dial import Route
from nearcache.backends.transport.dialect import Command, Dialect
from nearcache.backends.transport.history import History
from nearcache.backends.transport.spread import Answers, AwaitingSpread, Begin, BlockingSpread, Spread
from nearcache.errors import BackendError


class Link(Protocol):
    """A way to one server, of either flavour."""

    def execute(self, *commands: Command) -> list[Any] | Awaitable[list[Any]]:
        """Send commands together, and return their replies, or what to await for them."""
        ...

    def begin(self, *commands: Command, until: float, history: str = "") -> Any:
        """Send commands together; return what brings the replies."""
        ...

    async def open(self) -> None:
        """Connect ahead of the first use."""
        ...

    async def close(self) -> None:
        """Give up every connection."""
        ...


_KINDS: Final[dict[Flavour, tuple[Callable[..., Link], Callable[[BackendSpec], Spread]]]] = {
    "sync": (BlockingLink, BlockingSpread),
    "async": (AwaitingLink, AwaitingSpread),
}
_DIALECT: Final[Dialect] = dialect


class Node:
    """One server, for both flavours and any number of threads."""

    def __init__(self, place: Place, forgot: Callable[[], None]) -> None:
        endpoint = Endpoint(*place)
        self.where: str = endpoint.where
        self.route: Route[Endpoint] = Route(endpoint.where, lambda _: endpoint)
        self.history: History = History(forgot)
        self.outage: Outage | None = None


class Nodes:
    """The servers of a cache."""

    def __init__(self, places: Sequence[Place], forgot: Callable[[], None]) -> None:
        self.all: list[Node] = [Node(place, forgot) for place in places]


class LinkedServers:
    """The way to servers; see `Servers`."""

    def __init__(self, nodes: Nodes, spec: BackendSpec, flavour: Flavour) -> None:
        link, spread = _KINDS[flavour]
        self._nodes = nodes.all
        self._links = [link(_DIALECT, node.route, spec, node.history) for node in nodes.all]
        self._spread = spread(spec)
        self._timeout = spec.timeout

    def life(self, server: int) -> str:
        """Return the life that a server is in as far as is known, "" if nothing is."""
        return self._nodes[server].history.found

    def lacks(self) -> bool:
        """Tell whether a server does not answer, and others may."""
        return len(self._nodes) > 1 and any(node.outage is not None for node in self._nodes)

    async def open(self) -> None:
        """Connect to all that answer: without one, there are the others."""
        for node, link in zip(self._nodes, self._links, strict=True):
            try:
                await link.open()
            except BackendError as error:
                if len(self._nodes) == 1 or not is_silence(error):
                    raise
                self._spread.note(node, error)

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        for link in self._links:
            await link.close()

    async def send(self, orders: Mapping[int, Order]) -> Mapping[int, Heard | BackendError]:
        """Send commands, to all servers before the first is waited for, and return what became of them.

        All of it takes at most the time of one call, and what pools let wait.
        """
        if len(orders) == 1:
            ((server, order),) = orders.items()
            return {server: await self.ask(server, order)}
        return await self._all(orders)

    async def ask(self, server: int, order: Order) -> Heard | BackendError:
        """Send to one server; where nothing is wrong, that is nearly all that is done."""
        node, before = self._nodes[server], self.life(server)
        if node.outage is not None or order.life:
            return (await self._all({server: order}))[server]
        try:
            replies = self._links[server].execute(*order.commands)
            answers: Answers = replies if isinstance(replies, list) else await replies
        except BackendError as error:
            answers = error
        if isinstance(answers, list):
            node.outage = None  # another call may have begun one meanwhile
            return self._heard(server, before, answers)
        self._spread.note(node, answers)
        if not _may_go_again(order, answers):
            return answers
        return (await self._sent({server: order}, time.monotonic() + self._timeout))[server]

    async def _all(self, orders: Mapping[int, Order]) -> dict[int, Heard | BackendError]:
        until = time.monotonic() + self._timeout
        heard = await self._sent(orders, until)
        lost = {server: orders[server] for server in heard if _may_go_again(orders[server], heard[server])}
        return {**heard, **await self._sent(lost, until)} if lost else heard

    async def _sent(self, orders: Mapping[int, Order], until: float) -> dict[int, Heard | BackendError]:
        heard: dict[int, Heard | BackendError] = {}
        asked: list[int] = []
        for server in sorted(orders):  # in one order: nobody who has a connection waits for who waits for that
            error = self._spared(server)
            if error is None:
                asked.append(server)
            else:
                heard[server] = error
        before = [self.life(server) for server in asked]
        calls = [self._call(server, orders[server]) for server in asked]
        answers = await self._spread.ask([self._nodes[server] for server in asked], calls, until)
        for server, life, each in zip(asked, before, answers, strict=True):
            heard[server] = self._heard(server, life, each)
        return heard

    def _spared(self, server: int) -> BackendError | None:
        """Return why a server is not asked; a single one is not spared here."""
        return self._spread.spared(self._nodes[server]) if len(self._nodes) > 1 else None

    def _call(self, server: int, order: Order) -> Begin:
        return functools.partial(self._links[server].begin, *order.commands, history=order.life)

    def _heard(self, server: int, before: str, answers: Answers) -> Heard | BackendError:
        """Say of which life answers are: of the one that was known before, if it still is, or the first."""
        if isinstance(answers, BackendError):
            return answers
        life = self.life(server)
        return Heard(answers, life if before in ("", life) else "")


def _may_go_again(order: Order, answer: Heard | BackendError) -> bool:
    return isinstance(answer, LostConnection) and dialect.repeatable(order.commands)
