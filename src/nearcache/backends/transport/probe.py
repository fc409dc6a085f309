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


if sys.platform == "win32":

    def readable(sock: socket.socket) -> Callable[[], object]:
        """Return a function that says whether something has come or the other side has closed; it does not wait."""
        return lambda: select.select([sock], [], [], 0)[0]

else:

    def readable(sock: socket.socket) -> Callable[[], object]:
        """Return a function that says whether something has come or the other side has closed; it does not wait."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return functools.partial(poll.poll, 0)


def spoken(sock: socket.socket) -> bool:
    """Tell whether what makes an idle socket readable is its end or unasked data, not something that TLS needs."""
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


def descriptor(sock: socket.socket) -> int | None:
    """Return what `os.write` can write to at once; None if there is nothing such.

    A socket with a time limit first asks whether it may be written to, which nearly always is one system call too many.
    """
    return sock.fileno() if SOCKETS_ARE_FILES and not isinstance(sock, ssl.SSLSocket) else None
