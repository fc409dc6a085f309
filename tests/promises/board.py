"""What a writer and its readers share in memory: which version each key has, and when each version was acknowledged.

It is a mapped file of numbers, and nothing about it depends on the library. Times are those of the system's monotonic
clock, which all processes of a machine share.
"""

import mmap
from pathlib import Path

KINDS = ("set", "delete", "through", "tag")
KEYS = [f"{kind}:{number}" for kind in KINDS for number in range(2)]
VERSIONS = 100_000
"""Most versions of one key."""

ROW = VERSIONS + 1
STOP = len(KEYS) * ROW
QUIET = STOP + 1
READY = STOP + 2
READERS = 2


class Board:
    """One board, for one writer and any number of readers."""

    def __init__(self, path: Path) -> None:
        size = (READY + READERS) * 8
        with open(path, "a+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self._cells = memoryview(self._map).cast("d")

    @property
    def stopped(self) -> bool:
        """Whether everybody is to end."""
        return self._cells[STOP] != 0.0

    @property
    def quiet(self) -> bool:
        """Whether nobody is to write."""
        return self._cells[QUIET] != 0.0

    @property
    def ready(self) -> bool:
        """Whether every reader reads."""
        return all(self._cells[READY : READY + READERS])

    def read(self, reader: int) -> None:
        """Note that a reader reads."""
        self._cells[READY + reader] = 1.0

    def stop(self) -> None:
        """Let everybody end."""
        self._cells[STOP] = 1.0

    def be_quiet(self, quiet: bool) -> None:
        """Let nobody write, or let them go on."""
        self._cells[QUIET] = float(quiet)

    def current(self, key: int) -> int:
        """Return the version that the source holds; 0 before the first."""
        return int(self._cells[key * ROW])

    def write(self, key: int) -> int:
        """Write the next version to the source, and return it."""
        version = self.current(key) + 1
        assert version <= VERSIONS, "the board is full"
        self._cells[key * ROW] = version
        return version

    def acknowledge(self, key: int, version: int, now: float) -> None:
        """Note when the write of a version was acknowledged."""
        self._cells[key * ROW + version] = now

    def acknowledged(self, key: int, version: int, by: float) -> bool:
        """Tell whether the write of a version was acknowledged by a time."""
        return 0.0 < self._cells[key * ROW + version] < by

    def newer(self, key: int, version: int) -> tuple[int, float]:
        """Return the first version after this one that was acknowledged, and when; infinity if there is none."""
        for later in range(version + 1, self.current(key) + 1):
            if at := self._cells[key * ROW + later]:
                return later, at
        return VERSIONS, float("inf")
