"""The file of a near snapshot: what a process leaves of its near tier for the next one; whole, and its owner's alone.

    bytes  what
    20     "nearcache snapshot ", and the version of this layout
    32     BLAKE2b of all that follows
    n      a msgpack array: the digest of the engine's address and namespace, the time of writing, [[key, record], ...]

A file that is not in order is not read at all, and one that is no snapshot is not replaced either. What it holds is
trusted no more than what an engine holds: records are decoded by the codec, when they are asked for.
"""

import errno
import os
import stat
import sys
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from nearcache._core.ttl import described
from nearcache._core.urls import scheme_of, without_login
from nearcache.errors import ConfigError, UnsupportedError
from nearcache.options import Options

KIND: Final = b"nearcache snapshot "
VERSION: Final = b"1"
DIGEST: Final = 32
LARGEST: Final = 64_000_000
"""Bytes of a file; a larger one is neither written nor read."""

OVERHEAD: Final = 32
"""Bytes that an entry takes at most beside its key and record, or the file beside its entries."""

ABANDONED: Final = 3_600.0
"""Seconds after which a draft is taken for one of a process that was killed."""

OTHERS_MAY_ANYTHING: Final = 0o077
ANEW: Final = "it is written anew when the cache is closed"
ANOTHER: Final = "remove it, or name another path"


class Left(msgspec.Struct, frozen=True, gc=False):
    """What an earlier process left for a key: the record, and until when it is fresh, on the near tier's clock."""

    raw: bytes
    fresh: float


class SnapshotError(Exception):
    """Why a file is not used, and what to do."""


class _Contents(msgspec.Struct, frozen=True, array_like=True):
    origin: bytes
    written: float
    entries: list[tuple[str, bytes]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Contents)


class SnapshotFile:
    """The file at `path`, written and read by caches of one `origin`: an engine's address, and a namespace.

    Raises `UnsupportedError` where files have no owners.
    """

    def __init__(self, path: Path, origin: str) -> None:
        _user_id()
        self.path: Path = path
        self._origin = _digest(origin.encode())
        self.after_fork()

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self.lock: AbstractContextManager[bool] = threading.RLock()
        """For whoever reads or writes it."""

    def read(self, now: float) -> list[tuple[str, bytes]]:
        """Return the keys and records, [] if there is no file; `now` is the time of day. Raises `SnapshotError`."""
        try:
            with _opened(self.path) as file:
                kind, version, digest = file.read(len(KIND)), file.read(len(VERSION)), file.read(DIGEST)
                body = file.read(LARGEST)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SnapshotError(_reason(error)) from None
        if kind != KIND:
            raise SnapshotError(f"it is no near snapshot; {ANOTHER}")
        if version != VERSION:
            raise SnapshotError(f"another release of nearcache has written it; {ANEW}")
        if digest != _digest(body):
            raise SnapshotError(f"it is damaged; {ANEW}")
        return self._entries(body, now)

    def _entries(self, body: bytes, now: float) -> list[tuple[str, bytes]]:
        try:
            contents = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise SnapshotError(f"it is damaged; {ANEW}") from None
        if contents.origin != self._origin:
            raise SnapshotError("it is of a cache with another url or namespace; name a path for each")
        if not contents.written <= now:
            raise SnapshotError(f"it is from the future, so the clock was set back; {ANEW}")
        return contents.entries

    def write(self, entries: Iterable[tuple[str, bytes]], now: float) -> None:
        """Replace the file, at once or not at all; of entries, the first that fit. Raises `SnapshotError`."""
        try:
            self._check_replaced()
            self._sweep()
            body = _encoder.encode(_Contents(self._origin, now, list(_fitting(entries))))
            self._replace(KIND + VERSION + _digest(body) + body)
        except OSError as error:
            raise SnapshotError(_reason(error)) from None

    def _check_replaced(self) -> None:
        """Raise unless there is no file, or one that a cache of this user has written: a path may be a mistake."""
        with suppress(FileNotFoundError), _opened(self.path) as file:
            if file.read(len(KIND)) not in (KIND, b""):
                raise SnapshotError(f"what is there is no near snapshot; {ANOTHER}")

    def _replace(self, contents: bytes) -> None:
        draft = self.path.with_name(f"{self._drafts}{os.urandom(6).hex()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(contents)
                file.flush()
                os.fsync(descriptor)  # before its name: after a power cut the name must not stand for half a file
            draft.replace(self.path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        """Remove the drafts of processes that were killed while they wrote."""
        for each in self.path.parent.iterdir():
            with suppress(FileNotFoundError):
                if each.name.startswith(self._drafts) and time.time() - each.lstat().st_mtime > ABANDONED:
                    each.unlink()

    @property
    def _drafts(self) -> str:
        return f".{self.path.name}.new-"


def file_of(options: Options) -> SnapshotFile | None:
    """Return the file that a cache is to have, if any; raises `ConfigError` and `UnsupportedError`."""
    path = cast(object, options.near_snapshot)
    if path is None:
        return None
    if not path or not isinstance(path, (str, Path)) or "\0" in str(path):
        raise ConfigError(f"near_snapshot is {described(path)}; it must be the path of a file, a str or Path, or None")
    if scheme_of(options.url) == "memory":
        raise UnsupportedError("memory:// cannot do near_snapshot; engines that can: embedded, redis")
    if options.near is None:
        raise ConfigError("near_snapshot needs a near tier; leave it out, or near=None")
    if options.codec == "json":
        raise ConfigError("near_snapshot needs a header in front of every value, which codec='json' does not write")
    return SnapshotFile(Path(path).absolute(), f"{options.namespace} {without_login(options.url)}")


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=DIGEST).digest()


def _fitting(entries: Iterable[tuple[str, bytes]]) -> Generator[tuple[str, bytes]]:
    room = LARGEST - len(KIND) - len(VERSION) - 2 * DIGEST - OVERHEAD
    for key, raw in entries:
        room -= len(key.encode()) + len(raw) + OVERHEAD
        if room < 0:
            return
        yield key, raw


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    """Open a file of this user alone; never waits for whoever writes to a pipe. Raises `SnapshotError`, `OSError`."""
    descriptor = _open(path)
    try:
        _check(os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    if sys.platform != "win32":
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    raise _unsupported()


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SnapshotError(f"it is no regular file; {ANOTHER}")
    if found.st_uid != _user_id():
        raise SnapshotError(f"it belongs to another user; {ANOTHER}")
    if found.st_mode & OTHERS_MAY_ANYTHING:
        raise SnapshotError("other users may read or write it; remove it, and keep it where only you may")
    if found.st_size > LARGEST:
        raise SnapshotError(f"it is larger than {LARGEST:,} bytes; {ANOTHER}")


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link; name the file itself"
    return f"{error.strerror}; its folder must exist, and this user must be able to write there"


def _user_id() -> int:
    if sys.platform != "win32" and hasattr(os, "geteuid"):
        return os.geteuid()
    raise _unsupported()


def _unsupported() -> UnsupportedError:
    return UnsupportedError(f"near_snapshot needs files with owners, which {sys.platform} does not have; leave it out")
