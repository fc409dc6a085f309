"""The ears of a process on a cluster: a listener for each primary, which announces the changes of its own slots only.

Where changes are announced in a stream, the node that keeps the stream is the only one to listen to.
"""

import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from nearcache._core.fork import on_fork
from nearcache._core.weak import weakly
from nearcache.backends.redis.carrier import Carrier
from nearcache.backends.redis.errors import code_of, refused
from nearcache.backends.redis.leases import RedisLeases
from nearcache.backends.redis.line import Line
from nearcache.backends.redis.listener import CARRIERS, Ears, Listener, Part, Speaker
from nearcache.backends.redis.names import heartbeat_of, marks_of
from nearcache.backends.redis.topology import Node, Topology
from nearcache.backends.redis.tracking import Tracking
from nearcache.backends.registry import BackendSpec
from nearcache.backends.transport.dialect import Command
from nearcache.near.announced import Announced
from nearcache.near.inbox import Inbox
from nearcache.near.union import Member, Union

Speak = Callable[[Line, Listener], Speaker]


class Listeners(Ears):
    """The listeners of one process on the nodes of a cluster; opens nothing before it is needed.

    `speak` makes what speaks to the engine over the line of one of them.
    """

    def __init__(self, topology: Topology, spec: BackendSpec, speak: Speak) -> None:
        self.inbox: Inbox = Inbox()
        self._topology = topology
        self._spec = spec
        self._speak = speak
        self._marks = marks_of(spec.namespace)
        self._held = {}
        self._announced = self._new_announced()
        self.carrier: Carrier = CARRIERS[spec.bus](spec.namespace, self._announced)
        """Announces changes; it hears them too where that is done in a stream."""
        self._union = Union(spec.coherence)
        self._listens = False
        """Whether all who have to be heard are listened to: not if that was interrupted."""
        self._begin()
        topology.changed = weakly(self._changed)
        spec.coherence.seek = weakly(self.start)
        _all.add(self)

    def channel(self) -> str:
        """Return the channel of this process, "" while nobody listens on it; starts to listen."""
        self.start()
        return next((channel for each, _ in list(self._each.values()) if (channel := each.channel())), "")

    def sample(self, key: str) -> None:
        """Measure how long it takes until a change of a key, which is about to be sent, is announced."""
        name = f"{self._spec.namespace}:{key}"
        for node, (listener, _) in list(self._each.items()):
            if self._in_stream or self._topology.keeps(node, name):
                listener.sample(key)

    def start(self) -> None:
        """Listen to all nodes that have to be heard, in the background, and to others when there are others."""
        if not self._listens:
            with self._lock:
                self._listen()

    def stop(self) -> None:
        """Stop to listen, until somebody starts again."""
        with self._lock:
            self._listens = False
            self._listen_to(frozenset())

    def after_fork(self) -> None:
        """Begin anew in a forked child, which has no threads."""
        self.inbox.after_fork()
        self._held.clear()
        self._union.after_fork()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._each: dict[Node, tuple[Listener, Member]] = {}
        self._listens = False

    @property
    def _in_stream(self) -> bool:
        return self._spec.bus == "stream"

    def _changed(self) -> None:
        with self._lock:
            if self._listens:
                self._listen()

    def _listen(self) -> None:
        """Listen to those who have to be heard now. Until all of them are, nothing is vouched for."""
        nodes = self._topology.primaries
        self._listens = False
        self._listen_to(frozenset(filter(self._leads, nodes)) if self._in_stream else nodes)
        self._listens = True

    def _listen_to(self, nodes: frozenset[Node]) -> None:
        """Begin and end what that takes; done again, it completes what was interrupted."""
        for node in nodes - self._each.keys():
            self._each[node] = self._made(node)
        self._union.expect(self._each[node][1] for node in nodes)
        for node in self._each.keys() - nodes:
            self._each[node][0].stop()
            del self._each[node]
        for listener, _ in list(self._each.values()):
            listener.start()

    def _made(self, node: Node) -> tuple[Listener, Member]:
        spec, member, announced, carrier = self._spec, Member(self._union), self._announced, self.carrier
        if not self._in_stream:
            announced = self._new_announced()
            carrier = NodeTracking(spec.namespace, announced, node, self._topology)
        part = Part(member, self.inbox, self._held, announced, carrier, lambda: self._leads(node))
        listener = Listener(node.route, spec, node.history, self._speak, RedisLeases.life, _ignore, part)
        return listener, member

    def _leads(self, node: Node) -> bool:
        return self._topology.keeps(node, self._marks)

    def _new_announced(self) -> Announced:
        return Announced(self._spec.coherence, self._spec.time.clock, self.inbox.stir)


class NodeTracking(Tracking):
    """Hears what one node of a cluster says.

    A node that is cut off from the others would go on answering, but it serves no keys; and one that knows of another
    primary than those that are listened to tells of it.
    """

    def __init__(self, namespace: str, announced: Announced, node: Node, topology: Topology) -> None:
        super().__init__(namespace, announced)
        self._namespace = namespace
        self._node = node
        self._topology = topology
        self._alive = ""

    def begin(self, line: Line) -> None:
        """Have the node announce every change of the namespace, if it answers what it will be asked for proofs."""
        self.learn(line.execute(*self.questions()))
        super().begin(line)
        self.learn(line.execute(*self.questions()))

    def questions(self) -> list[Command]:
        """Ask for the slots, and for a key that the node keeps."""
        if not (self._alive and self._topology.keeps(self._node, self._alive)):
            self._alive = self._some_key()
        return [("CLUSTER", "SLOTS"), ("GET", self._alive)]

    def learn(self, replies: Sequence[Any]) -> None:
        """Take in the answers; raises `BackendError` where the node does not serve its keys."""
        slots, alive = replies
        moved = code_of(alive) == "MOVED"
        if isinstance(alive, Exception) and not moved:
            raise refused(alive, f"the node at {self._node.endpoint.where}")
        if isinstance(slots, Exception):
            raise refused(slots, "CLUSTER SLOTS") from slots
        self._topology.take(slots, self._node.endpoint.host)
        self._node.outage = None
        if moved:
            raise refused(alive, f"the node at {self._node.endpoint.where}")

    def _some_key(self) -> str:
        for number in itertools.count():
            name = heartbeat_of(self._namespace, number)
            if self._topology.keeps(self._node, name):
                return name
            if self._node not in self._topology.primaries:
                break
        return self._alive


def _ignore() -> None:
    pass


_all: "weakref.WeakSet[Listeners]" = weakref.WeakSet()


def _after_fork() -> None:
    for listeners in list(_all):
        listeners.after_fork()


on_fork(in_child=_after_fork)
