"""What one process leaves of its near tier for the next: taken when a cache is closed, read before it is first used.

Nobody vouches for what was left. It stands beside the near tier, and leaves with whatever becomes known of its key: an
answer of the engine, a load, a write, an invalidation. Marks of tags and of everything it is judged by when it is asked
for, which is only where the engine does not answer and the loader fails.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

from nearcache._core.clock import Clock
from nearcache.codecs.codec import Codec
from nearcache.codecs.schema import Schema
from nearcache.errors import CodecError, InvalidKeyError
from nearcache.near.slot import Slot
from nearcache.near.snapshot import Left, SnapshotFile
from nearcache.near.store import Store
from nearcache.near.view import View

NO_FILL: Final = bytes(8)
"""The fill id of records that are in no engine."""


class Snapshot:
    """The snapshot of one near tier, for any number of threads.

    `check` raises `InvalidKeyError` for what is no key. `wall` is the time of day in seconds: it is all that two
    processes of one host, one after the other, have in common.
    """

    def __init__(
        self,
        file: SnapshotFile,
        near: Store,
        view: View,
        codec: Codec,
        check: Callable[[object], str],
        wall: Clock = time.time,
    ) -> None:
        self._file = file
        self._near = near
        self._view = view
        self._codec = codec
        self._check = check
        self._wall = wall
        self._read = False
        self._ours = False

    @property
    def path(self) -> str:
        """Where the file is."""
        return str(self._file.path)

    def read(self) -> None:
        """Take in what the last process left, unless that was done; raises `SnapshotError`."""
        with self._file.lock:
            if self._read:
                return
            self._read = self._ours = True
            wall, now = self._wall(), self._near.clock()
            left = {}
            for key, raw in self._file.read(wall):
                try:
                    record = self._codec.open(raw)
                    left[self._check(key)] = Left(raw, now + record.born + record.soft - wall)
                except (CodecError, InvalidKeyError):
                    continue
            self._near.left = left

    def write(self) -> None:
        """Leave what is near for the next process; raises `SnapshotError`.

        Only the process that has read the file writes it: one that was forked from it knows less.
        """
        with self._file.lock:
            if self._ours:
                self._file.write(self._entries(), self._wall())

    def _entries(self) -> Iterator[tuple[str, bytes]]:
        """Return what is served near, the most useful first, then what was left and nothing became known of,
        no invalidation either.
        """
        epoch = self._view.told()  # first: what a later mark has made invalid must not seem newer than it
        for slot in sorted(self._near.slots(), key=_worth, reverse=True):
            try:
                yield slot.key, self._record(slot, epoch)
            except CodecError:  # a shared value that its readers have changed
                continue
        for key, each in self._near.left.copy().items():
            record = self._codec.open(each.raw)
            if self._view.holds(record.epoch, record.tags):
                yield key, each.raw

    def _record(self, slot: Slot, epoch: int) -> bytes:
        encoded = self._codec.encode(slot.own(), slot.schema if isinstance(slot.schema, Schema) else None)
        fresh = slot.deadline - self._near.clock()
        if fresh <= 0:
            raise CodecError("it has left the near tier meanwhile")
        return self._codec.seal(
            encoded, fill_id=NO_FILL, epoch=epoch, born=self._wall(), soft=fresh, hard=fresh, cost=0.0, tags=slot.tags
        )

    def after_fork(self) -> None:
        """Make it usable in a forked child, which leaves the file alone if its parent has read it."""
        self._file.after_fork()
        self._ours = False


def _worth(slot: Slot) -> float:
    """Return how often a value was read for the room it takes."""
    return (slot.reads + slot.freq) / slot.size
