"""An engine without scripts, in this process: registers that forget.

The head of a namespace, its buckets and everything else lie on three nodes, so that each can be lost alone; records of
the entity "other" lie on a fourth. Each step is atomic; between any two of them `pause` may let others go on. Nodes
number the changes of their records as Memcached does: from 1 on in each life, and a swap under a number of another life
is refused. With `by_bytes`, records are compared instead, as by Hazelcast.
"""

import itertools
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final

from nearcache._core.urls import KINDS
from nearcache._io.port import Flavour
from nearcache.backends.locks import Locks
from nearcache.backends.registers.backend import RegisterBackend
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Registers, Step, Swap
from nearcache.backends.registers.locks import RegisterLocks
from nearcache.backends.registers.renewing import Renewer
from nearcache.backends.registry import SCHEMES, BackendSpec
from nearcache.errors import BackendError, BackendUnavailableError

NODES: Final = ("head", "buckets", "values", "others")


class Node:
    """Some records, with the numbers of their last changes."""

    def __init__(self, *, by_bytes: bool = False) -> None:
        self.life = 0
        self.down = False
        self._by_bytes = by_bytes
        self.restart()

    def restart(self) -> None:
        """Lose everything, and count from 1 again."""
        self.life += 1
        self._items: dict[str, tuple[int, bytes, float]] = {}
        self._numbers = itertools.count(1)

    def lose(self, name: str) -> None:
        """Lose one record."""
        self._items.pop(name, None)

    def names(self) -> list[str]:
        """Return the names of all records."""
        return list(self._items)

    def look(self, name: str) -> Answer:
        """Read a record."""
        number, raw, until = self._items.get(name, (0, b"", -math.inf))
        left = until - time.monotonic()
        if left <= 0:
            self.lose(name)
            return Answer(False)
        return Answer(True, raw, raw if self._by_bytes else (self.life, number), left)

    def put(self, name: str, raw: bytes, ttl: float) -> Answer:
        """Store a record."""
        number = next(self._numbers)
        self._items[name] = (number, raw, time.monotonic() + ttl)
        return Answer(True, None, raw if self._by_bytes else (self.life, number))

    def add(self, name: str, raw: bytes, ttl: float) -> bool:
        """Store a record if there is none."""
        absent = not self.look(name).done
        if absent:
            self.put(name, raw, ttl)
        return absent

    def swap(self, step: Swap) -> Answer:
        """Store a record in the place of another state of it."""
        present = self.look(step.name)
        if not self.matches(present, step.seen) or present.left is None:
            return Answer(False)
        return self.put(step.name, step.raw, present.left if step.ttl is None else step.ttl)

    def drop(self, step: Drop) -> Answer:
        """Remove a record."""
        present = self.look(step.name)
        if not present.done or (step.seen is not None and not self.matches(present, step.seen)):
            return Answer(False)
        self.lose(step.name)
        return Answer(True, (present.raw or b"")[:1])

    def matches(self, present: Answer, seen: Answer) -> bool:
        """Tell whether a record is in the state of an answer."""
        return present.done and present.number == seen.number


class Server:
    """The nodes of an engine. `pause` is awaited before each step, whose kind it is told."""

    def __init__(self, *, by_bytes: bool = False) -> None:
        self.nodes: dict[str, Node] = {name: Node(by_bytes=by_bytes) for name in NODES}
        self.pause: Callable[[str], Awaitable[Any]] | None = None
        self.lags = False
        """Whether `pause` is awaited also before an answer arrives."""

    def node_of(self, name: str) -> Node:
        """Return where a record lies."""
        space, marks, number = name.partition("~m")
        if marks and ":" not in space:
            return self.nodes["buckets" if number else "head"]
        return self.nodes["others" if name.partition(":")[2].startswith("other:") else "values"]

    async def run(self, step: Step) -> Answer:
        """Take one step of the port, which may be two here."""
        try:
            answer = await self._take(step)
        except BackendUnavailableError as error:
            answer = Answer(False, error=error)
        if self.lags and self.pause is not None:
            await self.pause("answer")
        return answer

    async def _take(self, step: Step) -> Answer:
        node = self.node_of(step.name)
        added = False
        if isinstance(step, Add):
            await self._pause("add", node)
            added = node.add(step.name, step.raw, step.ttl)
        await self._pause(type(step).__name__.lower() if not isinstance(step, Add) else "look", node)
        match step:
            case Look() | Add():
                present = node.look(step.name)
                if isinstance(step, Look) and step.known is not None and node.matches(present, step.known):
                    return step.known
                return present if isinstance(step, Look) else Answer(added, present.raw, present.number, present.left)
            case Swap():
                return node.swap(step)
            case Put():
                return node.put(step.name, step.raw, step.ttl)
            case Drop():
                return node.drop(step)

    async def _pause(self, what: str, node: Node) -> None:
        if self.pause is not None:
            await self.pause(what)
        if node.down:
            raise BackendUnavailableError("a node is down (planned)")


class Forgetful:
    """The port, over a server."""

    coarse: float = 1.0
    longest: float = 30 * 86_400.0
    spreads: bool = True

    def __init__(self, server: Server) -> None:
        self.server = server

    async def run(self, *steps: Step) -> list[Answer]:
        """Take steps, one after the other."""
        return [await self.server.run(step) for step in steps]

    async def read(self, names: Sequence[str]) -> list[bytes | BackendError | None]:
        """Look at records."""
        return [answer.error or answer.raw for answer in await self.run(*map(Look, names))]

    async def time(self) -> float:
        """Tell whole seconds."""
        return float(math.floor(time.monotonic()))

    async def open(self) -> None:
        """There is nothing to connect to."""

    async def close(self) -> None:
        """There is nothing to give up."""

    def lacks(self) -> bool:
        """Tell whether a node is down."""
        return any(node.down for node in self.server.nodes.values())


class ForgetfulBackend(RegisterBackend):
    """The backend of forgetful://."""

    name: ClassVar[str] = "forgetful"

    def __init__(self, registers: Registers, spec: BackendSpec, flavour: Flavour) -> None:
        super().__init__(registers, spec, flavour)
        renewer = spec.shared(Renewer, lambda: Renewer(lambda _: registers, self.inbox))
        self.locks: Locks | None = RegisterLocks(registers, spec.namespace, self.turns, self.inbox, renewer)


_servers: dict[str, Server] = {}


def server_of(url: str) -> Server:
    """Return the server of a URL, always the same one: forgetful://name, or forgetful://bytes-name."""
    place = url.partition("://")[2]
    return _servers.setdefault(place, Server(by_bytes=place.startswith("bytes")))


def build(spec: BackendSpec, flavour: Flavour) -> ForgetfulBackend:
    """Build the backend of a URL; it never suspends in the sync flavour, unless somebody pauses it."""
    return ForgetfulBackend(Forgetful(server_of(spec.url)), spec, flavour)


KINDS["forgetful"] = "forgetful"
SCHEMES["forgetful"] = f"{__name__}:build"
