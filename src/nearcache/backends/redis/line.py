"""A blocking connection on which messages come between the replies."""

import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from nearcache.backends.redis.dialect import pack
from nearcache.backends.transport.dialect import INCOMPLETE, Command

CHUNK: Final = 65_536

PATIENCE: Final = 5.0
"""Seconds without a word after a question, after which the connection counts as broken."""


class Line:
    """One connection in RESP3, for one thread; messages are handed to `hear` in the order in which they come.

    It is a `Link` too, over which a backend can work. Raises `OSError` when the connection is lost.
    """

    spreads: bool = False

    def __init__(self, sock: socket.socket, hear: Callable[[hiredis.PushNotification], None]) -> None:
        self._sock = sock
        self._waits_itself = not isinstance(sock, ssl.SSLSocket) and os.name == "posix"
        """Whether the system may wait for data, instead of Python: that gives the lock of the interpreter up once for
        what arrives, and not three times, which counts where other threads compute."""
        sock.settimeout(None if self._waits_itself else PATIENCE)
        if self._waits_itself:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(PATIENCE))
        self._hear = hear
        self._reader = hiredis.Reader(notEnoughData=INCOMPLETE)
        self._replies: list[Any] = []
        self._subscribed: bool = False

    def lacks(self) -> bool:
        """There is one engine."""
        return False

    async def open(self) -> None:
        """It is open as long as it lives."""

    def renew(self) -> None:
        """It is the one that knows."""

    async def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def execute(self, *commands: Command) -> list[Any]:
        """Send commands and return their replies; whatever was said before them has been heard by then."""
        self._send(commands)
        return self._take(len(commands))

    def subscribe(self, channel: str) -> Exception | None:
        """Subscribe to a channel; return the error if the engine refuses, or cannot serve yet.

        It answers with a message where it agrees, and with a reply where it does not.
        """
        self._subscribed = False
        self._send((("SUBSCRIBE", channel), ("PING",)))
        (reply,) = self._take(1)
        if not isinstance(reply, Exception):
            return None
        if not self._subscribed:
            self._take(1)
        return reply

    def listen(self, until: float, enough: Callable[[], bool]) -> None:
        """Hear what is said until the time `until` (monotonic), or until it is `enough`."""
        while not enough() and self._receive(until):
            pass

    def _send(self, commands: tuple[Command, ...]) -> None:
        if not self._waits_itself:
            self._sock.settimeout(PATIENCE)
        self._sock.sendall(pack(commands))

    def _take(self, number: int) -> list[Any]:
        until = time.monotonic() + PATIENCE
        while len(self._replies) < number:
            if not self._receive(until):
                raise TimeoutError("the engine says nothing any more")
        replies, self._replies = self._replies[:number], self._replies[number:]
        return replies

    def _receive(self, until: float) -> bool:
        """Take in what arrives next; False if nothing does before the time `until`."""
        left = until - time.monotonic()
        if left <= 0:
            return False
        if self._waits_itself:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(left))
        else:
            self._sock.settimeout(left)
        try:
            data = self._sock.recv(CHUNK)
        except (TimeoutError, BlockingIOError):
            return False
        if not data:
            raise ConnectionResetError("the engine closed the connection")
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not INCOMPLETE:
            if isinstance(reply, hiredis.PushNotification):
                self._subscribed = self._subscribed or cast(list[Any], reply)[0] == b"subscribe"
                self._hear(reply)
            else:
                self._replies.append(reply)
        return True


def _timeval(seconds: float) -> bytes:
    """Return a time as the system takes it; at least a microsecond, for none at all means for ever."""
    micros = max(1, round(seconds * 1_000_000))
    return struct.pack("@ll", *divmod(micros, 1_000_000))
