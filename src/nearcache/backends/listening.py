"""A thread that hears what others change: started when that is needed, kept going, and begun anew after a fork."""

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from nearcache._core.fork import on_fork
from nearcache.near.coherence import Coherence, Session
from nearcache.near.union import Member

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0
"""Seconds between two tries to listen: doubled up to the longest."""


class Life:
    """One run of the thread, from its start until it is told to end."""

    def __init__(self) -> None:
        self.ended: threading.Event = threading.Event()
        self.heard: bool = False
        """Whether the engine has let the thread listen."""
        self.session: Session | None = None
        """During which every change is announced."""
        self.wake: Callable[[], None] = _ignore
        """Lets the thread notice that it is to end."""
        self.abandon: Callable[[], None] = _ignore
        """In a forked child: gives up what belongs to the thread, which has stayed in the parent."""

    def end(self) -> None:
        """Tell the thread to end."""
        self.ended.set()
        self.wake()


class Listening(ABC):
    """The thread; it does not run before it is needed."""

    def __init__(self, coherence: Coherence | Member) -> None:
        self._coherence: Coherence | Member = coherence
        self._life: Life | None = None
        self._lock = threading.RLock()
        _all.add(self)

    @property
    def listening(self) -> bool:
        """Whether the engine lets this process listen."""
        life = self._life
        return life is not None and life.heard

    def start(self) -> None:
        """Start to listen, in the background, unless somebody does."""
        if self._life is None:
            with self._lock:
                if self._life is None:
                    self._start()

    def _start(self) -> None:
        life = Life()
        thread = threading.Thread(target=self._run, args=(life,), name="nearcache-listener", daemon=True)
        try:
            self._life = life
            thread.start()
        except BaseException as error:
            self.stop()  # if it was interrupted, nobody knows whether it has started
            if not isinstance(error, RuntimeError):  # the interpreter is ending, or there are too many threads
                raise
            self._coherence.end(None, f"no thread could be started to listen: {error}")

    def stop(self) -> None:
        """End the thread; the next `start` begins anew."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            self._coherence.end(life.session, "nobody listens any more")
            life.end()
            self._stopped()

    def after_fork(self) -> None:
        """Begin anew in a forked child, which has no thread."""
        if self._life is not None:
            self._life.abandon()
        self._life, self._lock = None, threading.RLock()

    # In the thread

    def _run(self, life: Life) -> None:
        pause = FIRST_PAUSE
        while not life.ended.is_set():
            why = ""
            try:
                self._listen(life)
            except Exception as error:  # noqa: BLE001 -- whatever it is, to begin anew is the way to go on
                why = str(error) or type(error).__name__
            pause = FIRST_PAUSE if life.heard else min(2 * pause, LONGEST_PAUSE)
            life.heard = False
            if self._life is life:
                self._coherence.end(None, f"no connection announces changes: {why}")
            life.ended.wait(pause)

    def _begun(self, life: Life, sent: float) -> None:
        """Note that every change is announced from now on, as the engine answered to what was sent at `sent`."""
        with self._lock:  # nothing begins after `stop`
            if self._life is life:
                life.session = self._coherence.begin(sent)

    def _lost(self, life: Life) -> None:
        """Note that changes are not announced any more."""
        session, life.session = life.session, None
        if session is not None:
            self._coherence.end(session, "the connection that announces changes was lost")

    @abstractmethod
    def _listen(self, life: Life) -> None:
        """Listen until that fails, or the life is to end."""

    @abstractmethod
    def _stopped(self) -> None:
        """Do what has to be done when nobody listens any more."""


def _ignore() -> None:
    pass


_all: "weakref.WeakSet[Listening]" = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each.after_fork()


on_fork(in_child=_after_fork)
