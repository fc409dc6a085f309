"""What can be done with a socket without waiting: finding out whether it is still good, and writing to it."""

import functools
import os
import select
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Final

SOCKETS_ARE_FILES: Final = os.name == "posix"


def of(sock: socket.socket) -> Callable[[], bool]:
    """Return a function that says whether the idle socket was closed or sent something unasked; it takes no time."""
    readable = _readable(sock)
    return lambda: readable() and _spoken(sock)


if sys.platform == "win32":

    def _readable(sock: socket.socket) -> Callable[[], bool]:
        return lambda: bool(select.select([sock], [], [], 0)[0])

else:

    def _readable(sock: socket.socket) -> Callable[[], bool]:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return lambda: bool(poll.poll(0))


def _spoken(sock: socket.socket) -> bool:
    """Read without blocking: TLS may have something to say that is no data; anything else is unexpected."""
    limit = sock.gettimeout()
    sock.settimeout(0)
    try:
        sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        sock.settimeout(limit)
        return False
    except OSError:
        return True
    return True


def writer(sock: socket.socket) -> Callable[[bytes], int] | None:
    """Return a function that writes what there is room for and returns how much that was; None if there is none.

    A socket with a time limit first asks whether it may be written to, which nearly always is one system call too many.
    """
    direct = SOCKETS_ARE_FILES and not isinstance(sock, ssl.SSLSocket)
    return functools.partial(_write, sock.fileno()) if direct else None


def _write(descriptor: int, data: bytes) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
