"""The way to a cluster: every command to the node that keeps its key, all nodes at once, and again where a slot moves.

A node that does not keep a slot any more, or not yet, says who does (MOVED, ASK), and a script whose keys are on two
nodes at that moment is refused (TRYAGAIN), so it is sent again shortly after. What follows a command that was sent to
another node is sent again behind it where that can do no harm: so a deletion that meets a moving slot still removes the
lease of a key before its record.
"""

import asyncio
import functools
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from nearcache.backends.base import EngineReplaced, LostConnection, is_silence
from nearcache.backends.redis import dialect
from nearcache.backends.redis.dialect import repeatable
from nearcache.backends.redis.errors import code_of, good
from nearcache.backends.redis.slots import FOLLOWING, OF_SEVERAL_KEYS, joined, key_of, slot_of, split
from nearcache.backends.redis.topology import Node, Topology
from nearcache.backends.registry import BackendSpec
from nearcache.backends.transport.aio import AwaitingLink
from nearcache.backends.transport.blocking import BlockingLink
from nearcache.backends.transport.dialect import Command
from nearcache.backends.transport.spread import Answers, AwaitingSpread, Begin, BlockingSpread, Spread
from nearcache.errors import BackendError

T = TypeVar("T")
AnyLink = TypeVar("AnyLink", BlockingLink, AwaitingLink)

ROUNDS: Final = 8
"""How often commands are sent at most: a slot that has moved costs one more, one that is moving perhaps two."""

PAUSES: Final = (0.005, 0.01, 0.02, 0.04, 0.08)
"""Seconds to wait before a script is sent again whose keys were on two nodes."""

Execute = Callable[[Command], list[Any] | Awaitable[list[Any]]]


class _Errand:
    """One command to one node."""

    __slots__ = ("asking", "command", "key", "node", "reply")

    reply: Any

    def __init__(self, command: Command, key: str, node: Node) -> None:
        self.command = command
        self.key = key
        self.node = node
        self.asking = False
        self.reply = None

    def words(self) -> tuple[Command, ...]:
        """Return what to send."""
        return (("ASKING",), self.command) if self.asking else (self.command,)

    def answered(self, reply: Any) -> None:
        """Note an answer; what was deleted at one of two nodes was there."""
        if self.command[0] == "DEL" and isinstance(self.reply, int) and isinstance(reply, int):
            reply = max(self.reply, reply)
        self.reply = reply


class ClusterLink(ABC, Generic[AnyLink]):
    """A way to all nodes of a cluster, made of one to each; a `Link`.

    What names no key is sent to the node that keeps the engine key `home`.
    """

    spreads: bool = True
    _kind: Callable[[BackendSpec], Spread]

    def __init__(self, topology: Topology, spec: BackendSpec, home: str) -> None:
        self._topology = topology
        self._spec = spec
        self._home = home
        self._links: dict[Node, AnyLink] = {}
        self._spread = self._kind(spec)

    def lacks(self) -> bool:
        """Tell whether a primary does not answer."""
        return any(node.outage is not None for node in self._topology.primaries)

    async def open(self) -> None:
        """Learn the slots, and connect to every primary that answers: without one, there are the others."""
        await self._look()
        for node in self._topology.primaries:
            try:
                await self._to(node).open()
            except BackendError as error:
                if not is_silence(error):
                    raise
                self._spread.note(node, error)

    async def execute(self, *commands: Command) -> list[Any]:
        """Send commands, those to one node together, and return their replies in order.

        All of it takes at most `spec.timeout` seconds, and what pools let wait. What a node that cannot be reached was
        to do has a `BackendError` in the place of its reply.
        """
        until = time.monotonic() + self._spec.timeout
        if self._topology.due:
            await self._look_again()
        appeared = self._topology.appeared
        alone = len(commands) == 1 and commands[0][0] not in OF_SEVERAL_KEYS
        replies = await (self._one(commands[0], until) if alone else self._all(commands, until))
        if self._topology.appeared != appeared and repeatable(commands):  # what was done may be done again
            raise _replaced()
        return replies

    async def _one(self, command: Command, until: float) -> list[Any]:
        """Send one command; where nothing is wrong, that is nearly all that is done."""
        key = key_of(command) or self._home
        node = self._topology.owner(key)
        if node.outage is not None:
            return await self._all((command,), until)
        execute: Execute = self._to(node).execute
        try:
            replies = execute(command)
            answers: Answers = replies if isinstance(replies, list) else await replies
        except BackendError as error:
            answers = error
        if isinstance(answers, list) and not isinstance(answers[0], Exception):
            node.outage = None  # another call may have begun one meanwhile
            return answers
        self._spread.note(node, answers)
        errand = _Errand(command, key, node)
        self._take_in([errand], answers)
        await self._follow([errand], until)
        return [errand.reply]

    async def _all(self, commands: tuple[Command, ...], until: float) -> list[Any]:
        """Send commands, each to the nodes that keep its keys."""
        parts = [split(command) for command in commands]
        errands = list[_Errand]()
        for part in itertools.chain(*parts):
            errands.append(self._errand(part, errands[-1].key if part[0] in FOLLOWING and errands else ""))
        await self._send_all(errands, until)
        await self._follow(errands, until)
        replies = iter(errand.reply for errand in errands)
        return [joined(command, [next(replies) for _ in these]) for command, these in zip(commands, parts, strict=True)]

    def of(self, node: Node) -> Callable[[Command], Awaitable[Any]]:
        """Return what sends one command to a node and returns the reply."""

        async def single(command: Command) -> Any:
            (answers,) = await self._spread.send([self._call(node, (command,))], time.monotonic() + self._spec.timeout)
            if isinstance(answers, BackendError):
                raise answers
            return good(answers[0], node.endpoint.where)

        return single

    async def nodes(self) -> list[Node]:
        """Return the primaries, always in the same order."""
        if self._topology.due:
            await self._look_again()
        return sorted(self._topology.primaries, key=repr)

    def renew(self) -> None:
        """Begin nothing any more on a connection that is open now."""
        for link in list(self._links.values()):
            link.renew()

    async def close(self) -> None:
        """Give up every connection."""
        for link in list(self._links.values()):
            await link.close()

    async def _look_again(self) -> None:
        appeared = self._topology.appeared
        await self._look()
        for node in self._links.keys() - self._topology.primaries:
            self._links[node].renew()
        if self._topology.appeared != appeared:
            raise _replaced()

    def _errand(self, command: Command, key: str = "") -> _Errand:
        key = key or key_of(command) or self._home
        return _Errand(command, key, self._topology.owner(key))

    async def _follow(self, errands: list[_Errand], until: float) -> None:
        """Send commands again until none has to be sent to another node, or again."""
        pauses, left = iter(PAUSES), errands
        for _ in range(ROUNDS - 1):
            again = self._again(left)
            if any(code_of(errand.reply) == "TRYAGAIN" for errand in again):
                pause = next(pauses, None)
                if pause is None:
                    break
                await self._pause(pause)
            if not again:
                break
            await self._send_all(again, until)
            left = again
        for errand in errands:
            if isinstance(errand.reply, EngineReplaced):
                raise errand.reply

    async def _send_all(self, errands: Sequence[_Errand], until: float) -> None:
        """Send each command to its node, and note the replies."""
        shares: dict[Node, list[_Errand]] = {}
        for errand in errands:
            shares.setdefault(errand.node, []).append(errand)
        # Always in the same order: who has a connection to one node and waits for one to another waits for nobody who
        # waits for the first.
        nodes = sorted(shares, key=repr) if len(shares) > 1 else list(shares)
        asked = [node for node in nodes if not self._spared(node, shares[node])]
        calls = [self._call(node, [word for errand in shares[node] for word in errand.words()]) for node in asked]
        for node, answers in zip(asked, await self._spread.ask(asked, calls, until), strict=True):
            self._take_in(shares[node], answers)

    def _take_in(self, share: Sequence[_Errand], answers: Answers) -> None:
        """Note what became of the commands that were sent to one node."""
        if isinstance(answers, BackendError):
            self._topology.doubt()
            for errand in share:
                errand.reply = answers
            return
        replies = iter(answers)
        for errand in share:
            if errand.asking:
                next(replies)
            errand.answered(next(replies))

    def _spared(self, node: Node, share: Sequence[_Errand]) -> bool:
        """Tell whether a node that does not answer is not to be asked now; then its commands have failed."""
        error = self._spread.spared(node)
        if error is None:
            return False
        self._topology.doubt()
        for errand in share:
            errand.reply = error
        return True

    def _call(self, node: Node, commands: Sequence[Command]) -> Begin:
        return functools.partial(self._to(node).begin, *commands)

    def _again(self, errands: Sequence[_Errand]) -> list[_Errand]:
        """Return what has to be sent again, and note where to."""
        again, moving = list[_Errand](), dict[int, _Errand]()
        for errand in errands:
            slot, code = slot_of(errand.key), code_of(errand.reply)
            if code in ("MOVED", "ASK"):
                self._redirect(errand, code)
                moving[slot] = errand
            elif code == "TRYAGAIN":
                errand.node, errand.asking = self._topology.owner(errand.key), False
                moving[slot] = errand
            elif slot in moving and repeatable([errand.command]):
                errand.node, errand.asking = moving[slot].node, moving[slot].asking
            elif not (isinstance(errand.reply, LostConnection) and repeatable([errand.command])):
                if code == "CLUSTERDOWN":
                    self._topology.doubt()
                continue
            again.append(errand)
        return again

    def _redirect(self, errand: _Errand, code: str) -> None:
        """Note to which node a command has to be sent instead: from now on, or this once."""
        errand.node = self._topology.named(str(errand.reply).rpartition(" ")[2], errand.node)
        errand.asking = code == "ASK"
        if errand.asking:
            self._not_near(errand)
        else:
            self._topology.moved(errand.key, errand.node)

    def _not_near(self, errand: _Errand) -> None:
        """Have nothing kept near of what is read from a node that nobody listens to."""
        prefix = f"{self._spec.namespace}:"
        if errand.node not in self._topology.primaries and errand.key.startswith(prefix):
            self._spec.coherence.changed([errand.key.removeprefix(prefix)])

    def _to(self, node: Node) -> AnyLink:
        return self._links.get(node) or self._links.setdefault(node, self._made(node))

    @abstractmethod
    def _made(self, node: Node) -> AnyLink:
        """Make a way to a node."""

    @abstractmethod
    async def _look(self) -> None:
        """Have the topology look."""

    @abstractmethod
    async def _pause(self, seconds: float) -> None:
        """Let a moment pass."""


class BlockingCluster(ClusterLink[BlockingLink]):
    """A way that blocks: its methods are coroutines that never suspend."""

    _kind = BlockingSpread

    def _made(self, node: Node) -> BlockingLink:
        return BlockingLink(dialect, node.route, self._spec, node.history)

    async def _look(self) -> None:
        self._topology.look()

    async def _pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 -- driven by a caller that blocks


class AwaitingCluster(ClusterLink[AwaitingLink]):
    """A way that awaits."""

    _kind = AwaitingSpread

    def _made(self, node: Node) -> AwaitingLink:
        return AwaitingLink(dialect, node.route, self._spec, node.history)

    async def _look(self) -> None:
        await asyncio.to_thread(self._topology.look)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


AnyCluster = BlockingCluster | AwaitingCluster


def _replaced() -> BackendError:
    return EngineReplaced("another node of the cluster has taken over").undone()
