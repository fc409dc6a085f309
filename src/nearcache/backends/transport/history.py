"""Whose data it is that the connections of a process find.

Another history begins where an engine was restarted, or where a replica has taken over: what was acknowledged shortly
before may not be in it.
"""

import weakref
from collections.abc import Callable
from typing import Protocol

from nearcache.backends.base import EngineReplaced
from nearcache.backends.registry import BackendSpec
from nearcache.errors import BackendError


class Renewable(Protocol):
    """What begins anew with another history."""

    def renew(self) -> None:
        """Take nothing for granted any more that was found with the last one."""
        ...


class History:
    """What the connections to one engine found, for both flavours and the listener.

    `forgot` is called when they find another history than before.
    """

    def __init__(self, forgot: Callable[[], None]) -> None:
        self._forgot = forgot
        self._found = ""
        self._watching: weakref.WeakSet[Renewable] = weakref.WeakSet()

    @property
    def found(self) -> str:
        """The name of the history that was found last, "" if none was."""
        return self._found

    def watch(self, what: Renewable) -> None:
        """Have something renewed when another history is found: connections may lead to the old one."""
        self._watching.add(what)

    def met(self, found: str) -> bool:
        """Note the name of the history that a new connection leads to, "" if it is not told; tell whether it is
        another one than before. Whatever follows from that has been done by then.
        """
        if not found:
            return False
        if self._found in ("", found):
            self._found = found
            return False
        self.lost()
        self._found = found  # last: whoever finds it there goes on, and what follows must have been done
        return True

    def lost(self) -> None:
        """Take it that what was acknowledged shortly before may be lost."""
        for each in list(self._watching):
            each.renew()
        self._forgot()


def replaced() -> BackendError:
    """Return the error for commands that were meant for another history than is found; they were not sent."""
    return EngineReplaced("the engine was restarted meanwhile").undone()


def history(spec: BackendSpec, name: str) -> History:
    """Return what the connections to an engine found, the same for all backends of a cache."""
    return spec.shared(History, lambda: History(lambda: spec.coherence.forgot(name)))
