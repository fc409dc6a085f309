"""redis+cluster://: which primary of a cluster keeps which slots, as its nodes tell.

The nodes that are known are asked, and those in the URL. That a node sends somebody to another one, or cannot be
reached, is a reason to ask again.
"""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from nearcache._core.fork import on_fork
from nearcache._core.outage import Outage
from nearcache.backends.base import NotServing
from nearcache.backends.redis.ask import Hosts, ask, in_turn, where
from nearcache.backends.redis.connect import Endpoint
from nearcache.backends.redis.slots import SLOTS, slot_of
from nearcache.backends.transport.dial import Route
from nearcache.backends.transport.history import History
from nearcache.errors import BackendError, BackendUnavailableError, ConfigError

SCHEME: Final = "redis+cluster"

PORT: Final = 6379

ASK_AGAIN: Final = 0.1
"""Seconds between two questions for the slots at least."""


class Node:
    """One node of a cluster: how to connect to it, and whose data was found there."""

    def __init__(self, url: str, history: History) -> None:
        self.route: Route[Endpoint] = Route(url, Endpoint)
        self.history: History = history
        self.endpoint: Endpoint = self.route.endpoint()
        self.outage: Outage | None = None
        """What is known of it while it does not answer."""

    def __repr__(self) -> str:
        return f"Node({self.where})"

    @property
    def where(self) -> str:
        """The node's address, for messages."""
        return self.endpoint.where


class Topology:
    """The slots of one cluster, for both flavours and any number of threads; opens nothing before it is asked.

    `forgot` is called when a primary appears: it may be a replica that took over, and know less than the one before.
    All nodes together may take `seconds` to answer. Raises `ConfigError` for a wrong URL.
    """

    def __init__(self, url: str, seconds: float, forgot: Callable[[], None]) -> None:
        self._hosts = hosts = Hosts(url, PORT)
        if hosts.path or not hosts.names:
            raise ConfigError(
                "url (CACHE_URL): it names some nodes of a cluster, and no database: redis+cluster://h1:6379,h2:6379"
            )
        self._seconds = seconds
        self._forgot = forgot
        self._nodes: dict[str, Node] = {}
        self._named = [self._node(name) for name in hosts.names]
        self._turn = 0
        self._slots: list[Node | None] = [None] * SLOTS
        self._ask_at = 0.0
        self.primaries: frozenset[Node] = frozenset()
        """The nodes that keep slots."""
        self.appeared: int = 0
        """How often a primary has appeared."""
        self.changed: Callable[[], None] = _ignore
        """Called when slots may be elsewhere than before."""
        self._stale = True
        self.after_fork()
        _all.add(self)

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self._lock, self._looking = threading.RLock(), threading.RLock()

    @property
    def due(self) -> bool:
        """Whether it is time to `look`."""
        return self._stale and (not self.primaries or time.monotonic() >= self._ask_at)

    def doubt(self) -> None:
        """Note that it may not be right any more."""
        self._stale = True

    def owner(self, name: str) -> Node:
        """Return the node that keeps an engine key; if none is known to, one that tells who does, or that nobody does.

        Raises `BackendUnavailableError` if no node is known.
        """
        node = self._slots[slot_of(name)]
        if node is None:
            self._stale = True
            node = min(self.primaries, key=lambda node: (node.outage is not None, repr(node)), default=None)
        if node is None:
            raise BackendUnavailableError("no node of the cluster is known").undone()
        return node

    def keeps(self, node: Node, name: str) -> bool:
        """Tell whether a node keeps an engine key."""
        return self._slots[slot_of(name)] is node

    def named(self, address: str, by: Node) -> Node:
        """Return the node at an address that another has named; without a host it is that of who named it."""
        host, _, port = address.rpartition(":")
        if not (port.isascii() and port.isdecimal()):
            raise NotServing(f"{by.endpoint.where} sends commands elsewhere, and not to an address").undone()
        return self._node(where(host or by.endpoint.host, int(port)))

    def moved(self, name: str, node: Node) -> None:
        """Note that the slot of an engine key is at a node now."""
        with self._lock:
            self._stale = True
            self._expect(self.primaries | {node})
            self._slots[slot_of(name)] = node
            self.changed()

    def look(self) -> None:
        """Ask the nodes in turn, unless somebody just did (blocks).

        Where slots are known they may still be right: nobody waits for who asks already, and half of the time is left
        for what comes then. Raises `BackendError` if none tells, and nothing is known.
        """
        if not self._looking.acquire(blocking=not self.primaries):
            return
        try:
            if self.due:
                self._look(self._seconds / 2 if self.primaries else self._seconds)
        finally:
            self._looking.release()

    def _look(self, seconds: float) -> None:
        problems: list[str] = []
        for node, deadline in in_turn(self._next(), seconds):
            where = node.endpoint.where
            try:
                self.take(ask(node.endpoint, ("CLUSTER", "SLOTS"), deadline, where), node.endpoint.host)
            except BackendError as error:
                problems.append(str(error))
            else:
                return
        self._ask_at = time.monotonic() + ASK_AGAIN
        if not self.primaries:
            raise BackendUnavailableError(f"no node tells the slots of the cluster: {'; '.join(problems)}").undone()

    def _next(self) -> list[Node]:
        """Return whom to ask, last those that do not answer; each time beginning with another, since one that is cut
        off from the others tells what was.
        """
        nodes = sorted({*self.primaries, *self._named}, key=repr)
        self._turn = first = (self._turn + 1) % len(nodes)
        return sorted(nodes[first:] + nodes[:first], key=lambda node: node.outage is not None)

    def take(self, table: Any, host: str) -> None:
        """Take in the answer to CLUSTER SLOTS of a node on `host`."""
        slots: list[Node | None] = [None] * SLOTS
        try:
            for first, last, (address, port, *_), *_ in table:
                node = self._node(where(address.decode() if address else host, port))
                slots[first : last + 1] = [node] * (last + 1 - first)
        except (TypeError, ValueError, AttributeError) as error:
            raise BackendUnavailableError(f"{host} does not answer as a node of a cluster does").undone() from error
        if len(slots) != SLOTS or not any(slots):
            raise BackendUnavailableError(f"{host} knows of no slots; does it belong to a cluster?").undone()
        with self._lock:
            self._expect(frozenset(node for node in set(slots) if node is not None))
            self._slots, self._stale, self._ask_at = slots, False, time.monotonic() + ASK_AGAIN
            try:
                self.changed()
            except BaseException:
                self._stale = True  # interrupted: it is told again when the nodes are asked again
                raise

    def _expect(self, primaries: frozenset[Node]) -> None:
        """Note which nodes will keep slots, before anybody sends commands there by them."""
        if self.primaries and not primaries <= self.primaries:
            self._forgot()
            self.appeared += 1
        self.primaries = primaries

    def _node(self, place: str) -> Node:
        return self._nodes.get(place) or self._nodes.setdefault(
            place, Node(self._hosts.url(place), History(self._forgot))
        )


def _ignore() -> None:
    pass


_all: "weakref.WeakSet[Topology]" = weakref.WeakSet()


def _after_fork() -> None:
    for topology in list(_all):
        topology.after_fork()


on_fork(in_child=_after_fork)
