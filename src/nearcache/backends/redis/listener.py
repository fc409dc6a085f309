"""One thread and one connection per process and engine that hear what others say, and keep leases alive meanwhile.

The connection speaks RESP3, so that ordinary commands can be sent on it too, and hears two things. It subscribes to the
process's inbox, where those who end a lease tell those who wait for it. And it has the engine announce every change of
a key of the namespace, by whomever, so that near values can be served without asking. Every third of the staleness it
asks for the marks of the namespace: the answer proves that whatever was announced before was heard.

Both flavours share it. Without it everything works, only slower: near values are served for as long as the staleness,
who waits looks again once per lease, and a load that outlives its lease is not stored.
"""

import contextlib
import functools
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import hiredis

from nearcache._core.weak import weakly
from nearcache._io.blocking import drive
from nearcache.backends.listening import Life, Listening
from nearcache.backends.redis.bus import Bus
from nearcache.backends.redis.carrier import Carrier
from nearcache.backends.redis.connect import PRIMARY, Endpoint
from nearcache.backends.redis.errors import refused
from nearcache.backends.redis.line import Line
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.tracking import Tracking
from nearcache.backends.registry import BackendSpec
from nearcache.backends.renewal import Renewal
from nearcache.backends.transport.dial import Route, dial
from nearcache.backends.transport.dialect import Command
from nearcache.backends.transport.history import History
from nearcache.errors import BackendError, BackendUnavailableError
from nearcache.near.announced import Announced
from nearcache.near.coherence import Session
from nearcache.near.inbox import Inbox
from nearcache.near.union import Member

BEATS: Final = 3
"""Proofs within the staleness, and renewals within the life of a lease or a lock."""

LONGEST_WAIT: Final = 0.25
"""Seconds after which who listens looks whether something has to be renewed."""

SHORTEST_BEAT: Final = 0.01
"""Seconds between two proofs at least."""

CARRIERS: Final[dict[str, Callable[[str, Announced], Carrier]]] = {"tracking": Tracking, "stream": Bus}
"""What announces changes, by the option `bus`."""


class Run(Protocol):
    """Sends commands, and asks for the marks of the namespace if they have to be fresh."""

    def __call__(self, *commands: Command, fresh: bool = False) -> Coroutine[Any, Any, list[Any]]:
        """Return the replies; errors of the engine are among them."""
        ...


@dataclass(frozen=True, slots=True)
class Speaker:
    """What speaks to the engine over the listener's line: parts of a backend.

    `together` sends commands as they are, wherever their keys are. `settle` repeats the invalidations that the engine
    has not acknowledged, or has forgotten.
    """

    run: Run
    together: Callable[..., Coroutine[Any, Any, list[Any]]]
    settle: Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Part:
    """What a listener does as one of several, each of which hears another node of a cluster.

    They have the inbox and the leases in common. `leads` tells whether the marks of the namespace are on this node: who
    leads asks for them, and renews the leases.
    """

    coherence: Member
    inbox: Inbox
    held: dict[str, Renewal]
    announced: Announced
    carrier: Carrier
    leads: Callable[[], bool]


class Ears(ABC):
    """What hears of other processes, and keeps leases alive."""

    inbox: Inbox
    carrier: Carrier
    _held: dict[str, Renewal]
    """What to renew, by the token that stands in its record."""

    def hold(self, token: str, renewal: Renewal) -> Renewal:
        """Renew a lease or a lock, and return what that comes to; starts to listen.

        If it is lost, the mail that is expected under the token is told.
        """
        self._held[token] = renewal
        self.start()
        return renewal

    def let_go(self, token: str) -> None:
        """Renew a lease or a lock no longer."""
        self._held.pop(token, None)

    @abstractmethod
    def channel(self) -> str:
        """Return the channel of this process, "" while nobody listens on it; starts to listen."""

    @abstractmethod
    def sample(self, key: str) -> None:
        """Measure how long it takes until a change of a key, which is about to be sent, is announced."""

    @abstractmethod
    def start(self) -> None:
        """Start to listen, in the background, unless somebody does."""

    @abstractmethod
    def stop(self) -> None:
        """Stop to listen, until somebody starts again."""


class Listener(Listening, Ears):
    """The ears of a process on one engine, and the leases it keeps alive; opens nothing before it is needed.

    `speaker` makes what works over a line, for this listener. `life` is how many seconds a lease lives; it is renewed
    every third of that. `stopped` is called when the connection is given up.
    """

    def __init__(
        self,
        route: Route[Endpoint],
        spec: BackendSpec,
        history: History,
        speaker: "Callable[[Line, Listener], Speaker]",
        life: float,
        stopped: Callable[[], None],
        part: Part | None = None,
    ) -> None:
        super().__init__(spec.coherence if part is None else part.coherence)
        self._part = part
        self.inbox: Inbox = Inbox() if part is None else part.inbox
        self._route = route
        self._namespace = spec.namespace
        self._timeout = spec.timeout
        self._clock = spec.time.clock
        if part is None:
            self.announced: Announced = Announced(spec.coherence, spec.time.clock, self.inbox.stir)
            self.carrier: Carrier = CARRIERS[spec.bus](spec.namespace, self.announced)
        else:
            self.announced, self.carrier = part.announced, part.carrier
        self._speaker = speaker
        self._lease = life
        self._hung_up = stopped
        self._history = history
        self._met = False
        """Whether there was a connection before."""
        self._begin()
        if part is None:
            spec.coherence.seek = weakly(self.start)  # or nobody could drop the one without the other

    def channel(self) -> str:
        """Return the channel of this process, "" while nobody listens on it; starts to listen."""
        if not self.listening:
            self.start()
        return self._channel if self.listening else ""

    @property
    def _channel(self) -> str:
        return f"{self._namespace}~i:{self.inbox.name}"

    def sample(self, key: str) -> None:
        """Measure how long it takes until a change of a key, which is about to be sent, is announced."""
        self.announced.sample(key)

    def after_fork(self) -> None:
        """Begin anew in a forked child, which must not speak on its parent's connection."""
        super().after_fork()
        if self._part is None:
            self.inbox.after_fork()
        self._begin()

    def _begin(self) -> None:
        self._held = {} if self._part is None else self._part.held
        self.announced.reset()
        self.carrier.rename()

    # In the thread

    def _listen(self, life: Life) -> None:
        endpoint = self._route.endpoint()
        sock = dial(endpoint, time.monotonic() + self._timeout)
        life.wake, life.abandon = functools.partial(_shut, sock), sock.close
        try:
            if life.ended.is_set():
                self._hung_up()  # a route may have started the engine for a listener that is not wanted any more
                return
            line = Line(sock, self._hear)
            found = endpoint.check_greeting(line.execute(*endpoint.greeting(protocol=3)))
            if refusal := line.subscribe(self._channel):
                raise refused(refusal, "SUBSCRIBE")
            life.heard = True
            self.inbox.stir()
            self._look_whose_data_it_is(found)
            self._converse(life, line)
        finally:
            sock.close()

    def _converse(self, life: Life, line: Line) -> None:
        speaker, try_again = self._speaker(line, self), 0.0
        try:
            said = _greeted(line)
            while not life.ended.is_set():
                now = time.monotonic()
                if life.session is None and now >= try_again:
                    self._track(life, line, said)
                    try_again = now + self._lease
                session = life.session
                beat = self._lease if session is None else min(self._lease, self._coherence.budget)
                due, leads = now + max(SHORTEST_BEAT, beat / BEATS), self._part is None or self._part.leads()
                leading = speaker if leads else None
                if leading is not None:
                    with contextlib.suppress(BackendError):  # which the cache has told of already
                        drive(leading.settle())
                self._renew(leading)
                told = self._ask(line, leading, session, said)
                hear = line.listen if session is None else functools.partial(self.carrier.listen, line)
                enough = functools.partial(self._hurries, told)
                while (now := time.monotonic()) < due and not enough():
                    hear(min(due, now + LONGEST_WAIT), enough)
                    self._renew(leading)
        finally:
            self._lost(life)

    def _stopped(self) -> None:
        self.inbox.stir()
        self._hung_up()

    def _look_whose_data_it_is(self, found: str) -> None:
        """Notice that the engine was restarted or replaced; one that does not say so may always have been."""
        self._history.met(found)
        if self._met and not found:
            self._history.lost()
        self._met = True

    def _track(self, life: Life, line: Line, said: tuple[object, ...]) -> None:
        """Have every change of the namespace announced, if that can be, and somebody keeps values near."""
        coherence = self._coherence
        if not coherence.wanted:
            return
        if said[1] != PRIMARY:
            coherence.end(None, "the engine is a replica, which may be behind")
            return
        sent = self._clock()
        try:
            self.carrier.begin(line)
        except BackendUnavailableError:  # not now; another connection may find it otherwise soon
            raise
        except BackendError as error:
            coherence.end(None, str(error))
            return
        self._begun(life, sent)

    def _ask(self, line: Line, speaker: Speaker | None, session: Session | None, said: tuple[object, ...]) -> bool:
        """Ask for a proof that nothing was missed; who leads, for the marks too. False if they are not told."""
        self.announced.marked, sent = False, self._clock()
        questions = [("HELLO",), *(self.carrier.questions() if session is not None else [])]
        try:
            if speaker is None:
                hello, *rest = line.execute(*questions)
            else:
                hello, *rest = drive(speaker.run(*questions, fresh=session is not None))
        except BackendError as error:  # an answer, but none about the marks
            self._coherence.doubt(f"the engine does not tell the marks of tags: {error}")
            return False
        if _who(hello) != said:
            raise BackendUnavailableError("the engine is not what it was when it agreed to announce changes")
        if session is not None:
            self.carrier.learn(rest)
            self._coherence.prove(session, sent)
            self.announced.proven(sent)
        return True

    def _hurries(self, told: bool) -> bool:
        """Tell whether to ask at once. A full engine announces without end that it lost the marks it was given back."""
        return told and self.announced.marked

    def _hear(self, message: hiredis.PushNotification) -> None:
        kind, *rest = cast(list[Any], message)
        if kind == b"invalidate":
            self.carrier.hear(rest[0])
        elif kind == b"message":
            outcome, token, key = rest[1].decode("utf-8", "replace").split(" ", 2)
            self.inbox.deliver(key, token, outcome)

    def _renew(self, speaker: Speaker | None) -> None:
        """Renew what is due; who does not lead has no `speaker`, and leaves it to the one who does."""
        now = time.monotonic()
        for token, renewal in list(self._held.items()):
            if renewal.until <= now:
                self.let_go(token)
        due = [each for each in list(self._held.items()) if now >= each[1].renewed + each[1].life / BEATS]
        if speaker is None or not due:
            return
        with contextlib.suppress(BackendError):
            replies = drive(speaker.together(*(_renewing(token, renewal, now) for token, renewal in due)))
            for (token, renewal), reply in zip(due, replies, strict=True):
                self._renewed(token, renewal, now, reply)

    def _renewed(self, token: str, renewal: Renewal, sent: float, reply: Any) -> None:
        """Note what became of a renewal; one that failed is tried again soon."""
        if reply == 1:
            renewal.renewed = sent
        elif reply == 0:
            renewal.lost = True
            self.let_go(token)
            self.inbox.deliver(token, token, "lost")


def _renewing(token: str, renewal: Renewal, now: float) -> Command:
    """Return the command that renews a lease: never beyond its deadline, or a load that hangs would hold others up for
    a whole lease more.
    """
    life = max(1, int(min(renewal.life, renewal.until - now) * 1000))
    return "EVAL", script(renewal.how).text, "1", renewal.record, token, str(life)


def _greeted(line: Line) -> tuple[object, ...]:
    (hello,) = line.execute(("HELLO",))
    return _who(hello)


def _who(hello: Any) -> tuple[object, ...]:
    """Return which connection of what kind of engine answers; raises if it does not say so."""
    return hello[b"id"], hello[b"role"]


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
