"""What only POSIX systems have; importing this works everywhere, and so does asking whether it can be used."""

import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from nearcache.errors import UnsupportedError


def require_posix() -> None:
    """Raise `UnsupportedError` naming the platform if embedded servers cannot work here."""
    has_sockets_and_forks = hasattr(socket, "AF_UNIX") and hasattr(os, "fork")
    if sys.platform == "win32" or not has_sockets_and_forks or find_spec("fcntl") is None:
        raise _unsupported()


def user_id() -> int:
    """Return the id of the user that this process acts as."""
    if sys.platform != "win32":
        return os.geteuid()
    raise _unsupported()


def open_to_lock(path: Path, *, directory: bool = False) -> int:
    """Open a file, made if it is absent, or a directory, to lock it; a symbolic link is refused."""
    if sys.platform != "win32":
        how = os.O_RDONLY | os.O_DIRECTORY if directory else os.O_RDWR | os.O_CREAT
        return os.open(path, how | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    raise _unsupported()


def try_lock(descriptor: int, *, shared: bool) -> bool:
    """Lock an open file, alone or together with others, unless somebody's lock is in the way."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    raise _unsupported()


def unlock(descriptor: int) -> None:
    """End the lock of an open file, for every process that shares it."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def unix_socket() -> socket.socket:
    """Return a new unix socket, not connected."""
    if sys.platform != "win32":
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raise _unsupported()


def _unsupported() -> UnsupportedError:
    """Embedded servers are found through file locks, put into the background by forking, reached on unix sockets."""
    return UnsupportedError(f"embedded:// needs a POSIX system, and this is {sys.platform}: use memory:// or redis://")
