"""What leaders in other processes say to those who wait for them here."""

import itertools
import os
import threading
from collections.abc import Callable

Waker = Callable[[], None]


class Mail:
    """One wait for one key: wakers are called when something is heard, or when the way to hear something opens."""

    __slots__ = ("_inbox", "_lock", "_wakers", "heard", "key")

    def __init__(self, inbox: "Inbox", key: str) -> None:
        self._inbox = inbox
        self._lock = threading.RLock()
        self._wakers: list[Waker] = []
        self.key: str = key
        self.heard: tuple[str, str] | None = None
        """The token of a lease that ended, and what came of it."""

    def watch(self, waker: Waker) -> bool:
        """Have `waker` called when something is heard; False if it already was."""
        with self._lock:
            if self.heard is None:
                self._wakers.append(waker)
                return True
        return False

    def leave(self, waker: Waker) -> None:
        """Stop waiting."""
        with self._lock:
            if waker in self._wakers:
                self._wakers.remove(waker)

    def deliver(self, token: str, outcome: str) -> None:
        """Note what was heard and wake everybody."""
        with self._lock:
            self.heard = (token, outcome)
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def close(self) -> None:
        """Expect nothing any more."""
        self._inbox.forget(self)


class Inbox:
    """The waits of one process on one engine. Safe to use from any thread; locks are re-entrant for signal handlers."""

    def __init__(self) -> None:
        self.after_fork()

    def expect(self, key: str) -> Mail:
        """Begin to listen for a key; to be done before the lease is asked for, and ended by `Mail.close`."""
        mail = Mail(self, key)
        with self._lock:
            self._mails.setdefault(key, []).append(mail)
        return mail

    def forget(self, mail: Mail) -> None:
        """Stop listening for a key."""
        with self._lock:
            mails = self._mails.get(mail.key, [])
            if mail in mails:
                mails.remove(mail)
            if not mails:
                self._mails.pop(mail.key, None)

    def deliver(self, key: str, token: str, outcome: str) -> None:
        """Tell all who wait for a key that a lease of it ended."""
        with self._lock:
            mails = list(self._mails.get(key, ()))
        for mail in mails:
            mail.deliver(token, outcome)

    def stir(self) -> None:
        """Have everybody look again: what was said meanwhile may have been missed."""
        with self._lock:
            mails = list(itertools.chain(*self._mails.values()))
        for mail in mails:
            mail.deliver("", "")

    def after_fork(self) -> None:
        """Make a forked child's inbox its own: another name, and nobody waits."""
        self.name: str = os.urandom(8).hex()
        self._lock = threading.RLock()
        self._mails: dict[str, list[Mail]] = {}
