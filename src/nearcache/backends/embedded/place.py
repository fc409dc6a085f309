"""The files of one embedded server: where they are, and that they belong to this user alone.

Processes find one another through the data directory. A server without one is found through the runtime directory,
which also holds the sockets of all of this user's servers. It does not follow TMPDIR or XDG_RUNTIME_DIR: these differ
between a shell, a cron job and a service of one user, who would then get several servers that know nothing of each
other.
"""

import json
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nearcache.backends.embedded.posix import user_id
from nearcache.errors import ConfigError

TEMPORARY: Path = Path("/tmp")  # noqa: S108  # the folder made in it is 0700, and refused if it is not ours
OTHERS_MAY_WRITE: Final = 0o022
OTHERS_MAY_ANYTHING: Final = 0o077


@dataclass(frozen=True, slots=True)
class Record:
    """What is written down about the server before it is started; `ending`: it was told to stop."""

    socket: Path
    keep: bool
    ending: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """The files through which processes share one server.

    `change` is locked while one process starts or stops the server, `holders` by every process that uses it, `alive` by
    the server itself.
    """

    runtime: Path
    home: Path
    persistent: bool

    @property
    def change(self) -> Path:
        """Locked by the one process that may start or stop the server now."""
        return self.home / "change.lock"

    @property
    def holders(self) -> Path:
        """Locked by all processes that use the server, together."""
        return self.home / "holders.lock"

    @property
    def alive(self) -> Path:
        """Locked by the server itself for as long as it lives."""
        return self.home / "alive.lock"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "server.log"

    @property
    def pidfile(self) -> Path:
        """The server's process id, written by itself for people; nothing here relies on it."""
        return self.home / "server.pid"

    def new_socket(self) -> Path:
        """Return a path for a socket that no server has ever had, so that no dying one can remove it."""
        return self.runtime / f"{secrets.token_hex(6)}.sock"

    def read(self) -> Record | None:
        """Return what was written down last, None if that is nothing or unreadable."""
        try:
            found = json.loads((self.home / "server.json").read_bytes())
            return Record(Path(found["socket"]), bool(found["keep"]), bool(found["ending"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, record: Record) -> None:
        """Replace what was written down, at once or not at all."""
        text = json.dumps({"socket": str(record.socket), "keep": record.keep, "ending": record.ending})
        draft = self.home / "server.json.new"
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(text)
        draft.replace(self.home / "server.json")

    def prepare(self) -> None:
        """Make the directories where they are absent; raises `ConfigError` if they are not this user's alone."""
        _own(self.runtime, OTHERS_MAY_ANYTHING)
        _own(self.home, OTHERS_MAY_WRITE if self.persistent else OTHERS_MAY_ANYTHING)


def place_of(directory: Path | None) -> Place:
    """Return where the server of a data directory, or this user's server without one, keeps its files."""
    runtime = TEMPORARY / f"nearcache-{user_id()}"
    if directory is None:
        return Place(runtime, runtime / "memory", persistent=False)
    return Place(runtime, directory, persistent=True)


def _own(directory: Path, forbidden: int) -> None:
    """Make a directory that only this user may use, or check the one that is there."""
    found = _made(directory).lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"embedded:// needs {directory} to be a directory; move away what is there")
    if found.st_uid != user_id():
        raise ConfigError(f"embedded:// refuses {directory}: it belongs to another user; use a path of your own")
    if found.st_mode & forbidden:
        raise ConfigError(f"embedded:// refuses {directory}: other users may write there; run chmod 700 on it")


def _made(directory: Path) -> Path:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(f"embedded:// cannot make the directory {directory}: {error.strerror}") from error
    return directory
