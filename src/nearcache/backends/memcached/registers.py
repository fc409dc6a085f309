"""Single records of Memcached servers, as the port of registers wants them.

Numbers of records mean something only in one *life* of a server: one that was restarted counts from 1 again. So they
are kept together with the life they are of, and a swap goes only over a connection of that life, or not at all.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from nearcache.backends.memcached import dialect
from nearcache.backends.memcached.dialect import Refusal, Reply
from nearcache.backends.memcached.errors import refused, unexpected
from nearcache.backends.registers.base import Add, Answer, Drop, Look, Put, Step, Swap
from nearcache.backends.registers.records import BARE
from nearcache.backends.transport.dialect import Command
from nearcache.errors import BackendError

COARSE: Final = 2.0
"""Seconds that the server's time may be ahead of what it tells: it tells whole ones, and looks at its clock once a
second.
"""

STORED_BARE: Final = BARE[0]
"""What is noted beside a stub that carries no record; nothing (0) beside all others, for readers in other languages."""

SHORTEST: Final = 1.0
"""Seconds that a record lives at least whose life is kept: 0 would be for ever."""

_NATURAL: Final = re.compile(rb"[0-9]{1,19} *").fullmatch
"""A number as the engine adds to it; it may leave spaces behind one that has become shorter."""

REFUSED: Final = Answer(False)
"""What comes of a step that could not be done, and was not sent."""


class Heard(NamedTuple):
    """What a server answered, and the life it is in; "" if that cannot be told."""

    replies: Sequence[Any]
    life: str


class Order(NamedTuple):
    """Commands to one server; with a `life`, only over a connection to that life of it."""

    commands: Sequence[Command]
    life: str = ""


class Servers(Protocol):
    """A way to several servers, which are known by their places in a list."""

    def life(self, server: int) -> str:
        """Return the life that a server is in as far as is known, "" if nothing is."""
        ...

    async def ask(self, server: int, order: Order) -> Heard | BackendError:
        """Send commands to one server, and return what became of them."""
        ...

    async def send(self, orders: Mapping[int, Order]) -> Mapping[int, Heard | BackendError]:
        """Send commands, to all servers before the first is waited for, and return what became of them.

        What needs another life than a connection leads to is not sent.
        """
        ...

    async def open(self) -> None:
        """Connect ahead of the first use."""
        ...

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        ...

    def lacks(self) -> bool:
        """Tell whether a server does not answer."""
        ...


class Number(NamedTuple):
    """Which change of a record was its last, in a life of its server."""

    life: str
    value: bytes


class Places(Protocol):
    """Which server keeps which record."""

    @property
    def size(self) -> int:
        """How many servers there are."""
        ...

    def of(self, key: str, /) -> int:
        """Return the place of a record's server in the list of servers."""
        ...


class MemcachedRegisters:
    """The port, over servers on a ring; the server of the record `home` tells the time."""

    coarse: float = COARSE
    longest: float = dialect.LONGEST_LIFE

    def __init__(self, servers: Servers, ring: Places, home: str) -> None:
        self._servers = servers
        self._ring = ring
        self._home = home

    @property
    def spreads(self) -> bool:
        """Whether there are several servers."""
        return self._ring.size > 1

    async def run(self, *steps: Step) -> list[Answer]:
        """Take steps on one trip for each server, two where a record that is known was changed."""
        answers = await self._taken(steps)
        changed = [at for at, answer in enumerate(answers) if answer is None]
        again = await self._taken([Look(steps[at].name) for at in changed]) if changed else []
        for at, answer in zip(changed, again, strict=True):
            answers[at] = answer
        return [REFUSED if answer is None else answer for answer in answers]

    async def read(self, names: Sequence[str]) -> Sequence[bytes | BackendError | None]:
        """Return records; what only swaps need is not asked for."""
        if self._ring.size == 1 or len(names) == 1:
            heard = await self._servers.ask(self._ring.of(names[0]), Order([dialect.read(name) for name in names]))
            return _records(names, heard)
        shares: dict[int, list[str]] = {}
        for name in names:
            shares.setdefault(self._ring.of(name), []).append(name)
        orders = {server: Order([dialect.read(name) for name in share]) for server, share in shares.items()}
        found: dict[str, bytes | BackendError | None] = {}
        for server, heard in (await self._servers.send(orders)).items():
            found.update(zip(shares[server], _records(shares[server], heard), strict=True))
        return [found[name] for name in names]

    async def time(self) -> float:
        """Return the time of one of the servers."""
        heard = await self._servers.ask(self._ring.of(self._home), Order([dialect.stats()]))
        if isinstance(heard, BackendError):
            raise heard
        (told,) = heard.replies
        if isinstance(told, Refusal):
            raise refused(str(told), "stats").undone()
        try:
            return float(told["time"])
        except (TypeError, KeyError, ValueError):
            raise unexpected(told, "stats") from None

    async def open(self) -> None:
        """Connect ahead of the first use."""
        await self._servers.open()

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        await self._servers.close()

    def lacks(self) -> bool:
        """Tell whether a server does not answer."""
        return self._servers.lacks()

    async def _taken(self, steps: Sequence[Step]) -> list[Answer | None]:
        """Take steps on one trip; an answer is None if a record that is known was changed, and has to be read."""
        told: list[Answer | None] = [REFUSED] * len(steps)
        shares: dict[int, _Share] = {}
        for at, step in enumerate(steps):
            server = self._ring.of(step.name)
            share = shares.get(server) or shares.setdefault(server, _Share(self._servers.life(server)))
            try:
                share.take(at, step)
            except BackendError as error:
                told[at] = Answer(False, error=error)
        orders = {server: share.order() for server, share in shares.items() if share.commands}
        if not orders:
            return told
        for server, answer in (await self._servers.send(orders)).items():
            for at, each in shares[server].read(answer):
                told[at] = each
        return told


class _Share:
    """The steps that one server is to take."""

    def __init__(self, life: str) -> None:
        self.commands: list[Command] = []
        self._life = life
        self._binds = False
        self._steps: list[tuple[int, Step, int]] = []

    def take(self, at: int, step: Step) -> None:
        """Add the step number `at`; one that cannot be done is left out."""
        commands = self._commands(step)
        if commands:
            self._steps.append((at, step, len(commands)))
            self.commands += commands

    def order(self) -> Order:
        """Return what to send."""
        return Order(self.commands, self._life if self._binds else "")

    def read(self, heard: Heard | BackendError) -> Iterator[tuple[int, Answer | None]]:
        """Return the answers to the steps, with their numbers."""
        if isinstance(heard, BackendError):
            yield from ((at, Answer(False, error=heard)) for at, _, _ in self._steps)
            return
        replies = iter(heard.replies)
        for at, step, count in self._steps:
            yield at, _answer(step, [next(replies) for _ in range(count)], heard.life)

    def _commands(self, step: Step) -> list[Command]:
        name = step.name
        match step:
            case Look(known=known) if known is not None and not step.life and self._number(known):
                return [dialect.get_number(name)]
            case Look():
                return [dialect.get(name)]
            case Add():
                return [dialect.add(name, step.raw, step.ttl, _note(step.raw)), dialect.get(name)]
            case Put():
                return [dialect.store(name, step.raw, step.ttl, _note(step.raw))]
            case Drop(seen=None):
                return [dialect.get_note(name), dialect.delete(name)]
            case Drop():
                number = step.seen and self._bound(step.seen)
                return [dialect.delete(name, number)] if number else []
            case Swap(ttl=None) if (by := _added(step)) is not None:
                number = self._bound(step.seen)
                return [dialect.count(name, by, number)] if number else []
            case Swap():
                number, ttl = self._bound(step.seen), _kept(step)
                return [dialect.swap(name, step.raw, ttl, _note(step.raw), number)] if number and ttl else []

    def _number(self, seen: Answer) -> bytes | None:
        """Return the number of an answer if it is of the server's present life."""
        number = seen.number
        return number.value if isinstance(number, Number) and number.life and number.life == self._life else None

    def _bound(self, seen: Answer) -> bytes | None:
        """Do the same, and see to it that only this life of the server gets the commands."""
        number = self._number(seen)
        self._binds = self._binds or number is not None
        return number


def _records(names: Sequence[str], heard: Heard | BackendError) -> list[bytes | BackendError | None]:
    if isinstance(heard, BackendError):
        return [heard] * len(names)
    return [
        reply.data if type(reply) is Reply else _wrong(reply, name)
        for reply, name in zip(heard.replies, names, strict=True)
    ]


def _wrong(reply: object, name: str) -> BackendError:
    return refused(str(reply), name) if isinstance(reply, Refusal) else unexpected(reply, name)


def _note(raw: bytes) -> int:
    return STORED_BARE if raw[:1] == BARE else 0


def _added(step: Swap) -> int | None:
    """Return by how much a number changes into another; None if they are none, or less than 0.

    The engine does such sums itself, and keeps the record's life. It tells whole seconds, and when the next one begins
    just before a swap, that gives the record a second more: a counter that is used all the time would never end.
    """
    old, new = step.seen.raw, step.raw
    return int(new) - int(old) if old is not None and _NATURAL(old) and _NATURAL(new) else None


def _kept(step: Swap) -> float | None:
    """Return how many seconds the new record is to live, perhaps one more than it had; None if nobody can tell."""
    if step.ttl is None and step.seen.left is not None:
        return max(SHORTEST, step.seen.left)
    return step.ttl


def _answer(step: Step, replies: Sequence[Any], life: str) -> Answer | None:
    """Return what came of a step; None if the record that is known was changed."""
    for reply in replies:
        if not isinstance(reply, Reply):
            return Answer(False, error=_wrong(reply, step.name))
    first, last = replies[0], replies[-1]
    match step:
        case Look(known=known) if last.code == "HD":
            return known if known is not None and known.number == _number(last, life) else None
        case Look() | Add():
            done = last.code == "VA" if isinstance(step, Look) else first.code == "HD"
            return Answer(done, last.data, _number(last, life), last.left)
        case Drop(seen=None):
            return Answer(last.code == "HD", BARE if first.note == b"%d" % STORED_BARE else None)
        case Put() | Swap() | Drop():
            return Answer(last.code == "HD", None, _number(last, life))


def _number(reply: Reply, life: str) -> Number | None:
    return Number(life, reply.number) if reply.number is not None and life else None
