"""Whether this process hears of every change in the engine, and until when that is proven.

What others may change can be served from memory only if every change is announced, and if everything announced so far
was heard. The first holds during a *session*: from when the engine has agreed to announce changes until the connection
that carries them is lost. The second is *proven* by a request on that connection: once its answer is there, so is all
that was announced before it. Near values are served until `budget` seconds after the last such request was sent. So a
thread that is late, or a process that was stopped, serves nothing it can no longer vouch for.

Without a session near values are served until `budget` seconds after they were asked for.
"""

import math
import threading
from collections.abc import Callable, Iterable
from typing import Final

from nearcache._core.clock import Clock
from nearcache.near.flights import Flights
from nearcache.near.store import Store

NOT_YET: Final = "no value was kept yet"


class Session:
    """One time span in which every change is announced."""


def _ignore() -> None:
    pass


def _ignore_lag(_seconds: float) -> None:
    pass


def _ignore_reset(_engine: str) -> None:
    pass


class Coherence:
    """The coherence of one near tier with an engine, for any number of threads.

    `budget` is in seconds. `wanted` is whether there is a near tier to be kept coherent at all.
    """

    def __init__(self, near: Store, flights: Flights, clock: Clock, budget: float, *, wanted: bool) -> None:
        self._near = near
        self._flights = flights
        self.clock: Clock = clock
        self.budget: float = budget
        self.wanted: bool = wanted
        self.seek: Callable[[], None] = _ignore
        """Called when values are kept that nobody announces the changes of, and when invalidations wait for the engine
        to answer: looks for a session, in the background.
        """
        self.owing: Callable[[], None] = _ignore
        """Called when anything waits for the engine: repeats it, in the background, where nobody listens."""
        self.lagged: Callable[[float], None] = _ignore_lag
        """Called with the seconds from a write by this process until its announcement was heard."""
        self.forgot: Callable[[str], None] = _ignore_reset
        """Called with the name of the engine when that was restarted or replaced."""
        self.since: float = clock()
        """Since when proofs have gone on without a gap in the present session, or when the last one ended."""
        self.why: str = NOT_YET
        """Why there is no session, or no proof."""
        self.proven: float = -math.inf
        """When the last request was sent that is a proof."""
        self._session: Session | None = None
        self._lock = threading.RLock()

    @property
    def tracked(self) -> bool:
        """Whether a session is on."""
        return self._session is not None

    def told(self) -> tuple[bool, float, str | None]:
        """Return whether near values are served until they change, for how many seconds it has been so, and why not."""
        now = self.clock()
        if self._session is not None and now >= self.proven + self.budget:
            return False, now - self.proven - self.budget, self.why or "the last proof is older than the staleness"
        return self.tracked, now - self.since, None if self.tracked else self.why

    def age(self) -> float | None:
        """Return the seconds since the last proof was asked for, infinity if there is none; None if none is needed."""
        if not self.wanted:
            return None
        return self.clock() - self.proven if self._session is not None else math.inf

    # For those who keep values

    def deadline(self, asked: float, fresh: float) -> float:
        """Return until when a value may be served that was asked for at `asked` and is fresh until `fresh`."""
        if self._session is not None:
            return fresh
        self.seek()
        self._settle()
        return min(asked + self.budget, fresh)

    def _settle(self) -> None:
        """Let values live by their own deadlines again when the proof of the last session has run out."""
        if self._near.vouched < math.inf:
            with self._lock:
                if self._session is None and self.clock() >= self._near.vouched:
                    self._near.disown()
                    self._near.vouch(math.inf)

    # For the one who listens

    def begin(self, sent: float) -> Session:
        """Note that every change is announced from now on, as the engine answered to what was sent at `sent`."""
        session = Session()
        with self._lock:
            self._near.disown()  # whatever changed in it before, nobody said so; fills that began before are refused
            self._session, self.since = session, self.clock()
            self._prove(sent)
        return session

    def prove(self, session: Session, sent: float) -> None:
        """Note that everything was heard that was announced before `sent`."""
        with self._lock:
            if self._session is session:
                self._prove(sent)

    def _prove(self, sent: float) -> None:
        if (now := self.clock()) >= self.proven + self.budget:
            self.since = now  # nothing was served for a while
        self.proven, self.why = sent, ""
        self._near.vouch(sent + self.budget)

    def end(self, session: Session | None, why: str) -> None:
        """Note that changes are no longer announced; values are served as long as is proven."""
        with self._lock:
            self.why = why
            if session is not None and self._session is session:
                self._session, self.since = None, self.clock()

    def doubt(self, why: str) -> None:
        """Note why there is no proof."""
        self.why = why

    def changed(self, keys: Iterable[str]) -> None:
        """Serve nothing that was read or loaded before these keys were changed in the engine, by whomever."""
        self._near.changed(keys)
        self._flights.detach(keys)

    def changed_all(self) -> None:
        """Serve nothing that was read or loaded before now: the engine was emptied."""
        self._near.clear()
        self._flights.detach_all()

    def after_fork(self) -> None:
        """Make it usable in a forked child, to which nobody announces anything yet."""
        self._lock = threading.RLock()
        self._session, self.since, self.why = None, self.clock(), NOT_YET
