"""The server process: how it is started, greeted and told to end."""

import enum
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nearcache.backends.embedded import locks
from nearcache.backends.embedded.place import Place, Record
from nearcache.backends.embedded.posix import unix_socket
from nearcache.backends.embedded.program import find
from nearcache.backends.embedded.settings import Settings
from nearcache.errors import BackendUnavailableError

LAUNCH_WITHIN: Final = 10.0
"""Seconds the program may take to read its settings and go into the background."""

LOG_LIMIT: Final = 1_000_000
"""Bytes after which a start begins a new log."""

ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
"""The variables a server is given; others may hold the program's secrets, and the server may outlive it."""


class Answer(enum.Enum):
    """What a server says when it is greeted."""

    READY = "ready"
    LOADING = "still reading its data"
    NOTHING = "no answer"


def start(place: Place, settings: Settings, alive: int) -> Record:
    """Start a server in the background and return where it will be; it is not ready yet.

    The server inherits `alive`, an open file with a lock, and so holds the lock until it is gone. What is needed to
    find it is written down before: should this process die now, the next one can join the server.
    """
    program = find()
    _tidy(place)
    record = Record(place.new_socket(), _keep(place, settings))
    place.write(record)
    runtime = locks.open_directory(place.runtime)
    try:
        # Cleaners of /tmp spare a directory that somebody has locked.
        locks.try_shared(runtime)
        _launch([str(program), *_options(place, record, settings)], alive, runtime)
    finally:
        locks.close(runtime)
    return record


def greet(path: Path, timeout: float) -> Answer:
    """Ask the server at this socket whether it is ready, waiting at most `timeout` seconds."""
    try:
        reply = _ask(path, b"PING\r\n", timeout)
    except OSError:
        return Answer.NOTHING
    if reply.startswith(b"-LOADING"):
        return Answer.LOADING
    return Answer.READY if reply.startswith(b"+PONG") else Answer.NOTHING


def stop(path: Path, timeout: float) -> bool:
    """Tell the server to end, wait for that at most `timeout` seconds, and tell whether it will."""
    try:
        # It answers only if it refuses; otherwise the connection ends with it.
        return not _ask(path, b"SHUTDOWN NOSAVE\r\n", timeout)
    except OSError:
        return True  # it is gone already, or hangs and ends when it goes on


def last_words(place: Place) -> str:
    """Return the end of the server's log, for an error message; it holds no keys and no values."""
    try:
        lines = place.log.read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return f"the end of {place.log} is: {' / '.join(lines[-3:])}"


def _keep(place: Place, settings: Settings) -> bool:
    before = place.read()
    return settings.keep if settings.keep is not None else before is not None and before.keep


def _tidy(place: Place) -> None:
    """Remove what a killed server left."""
    before = place.read()
    if before is not None and before.socket.parent == place.runtime:
        before.socket.unlink(missing_ok=True)
    if place.log.exists() and place.log.stat().st_size > LOG_LIMIT:
        place.log.unlink()


def _options(place: Place, record: Record, settings: Settings) -> Iterator[str]:
    options = {
        "port": "0",
        "unixsocket": str(record.socket),
        "unixsocketperm": "700",
        "daemonize": "yes",
        "pidfile": str(place.pidfile),
        "logfile": str(place.log),
        "dir": str(place.home),
        "databases": "1",
        "save": "",
        "appendonly": "yes" if place.persistent else "no",
        "maxmemory": str(settings.maxmemory),
        "maxmemory-policy": "allkeys-lfu",
        "lazyfree-lazy-eviction": "yes",
        "lazyfree-lazy-expire": "yes",
    }
    for name, value in options.items():
        yield from (f"--{name}", value)


def _launch(command: list[str], *inherited: int) -> None:
    """Run the program until it has gone into the background: it is then no child of ours, and leaves no zombie."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    try:
        done = subprocess.run(  # noqa: S603  # a program that we looked up, with our own arguments
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=environment,
            pass_fds=inherited,
            start_new_session=True,  # Ctrl-C in the terminal is not meant for the server
            umask=0o077,
            timeout=LAUNCH_WITHIN,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        problem = f"embedded:// could not run {command[0]}: {type(error).__name__}"
        raise BackendUnavailableError(problem).undone() from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-300:]
        raise BackendUnavailableError(f"embedded:// could not start {command[0]}: {said}").undone()


def _ask(path: Path, command: bytes, timeout: float) -> bytes:
    with unix_socket() as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        connection.sendall(command)
        return connection.recv(128)
