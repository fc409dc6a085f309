"""Which fills of the near tier are still allowed: those that no change has crossed since their stamp was taken."""

from typing import Final

STRIPES: Final = 1_024
MOST_PASSED: Final = 1_024
"""Keys that are noted one by one; beyond, all fills under way are refused."""


class Stamps:
    """The stamp of each key; it only grows. Its owner's lock must be held, but for `of`."""

    __slots__ = ("_all", "_passed", "_stripes")

    def __init__(self) -> None:
        self._stripes = [0] * STRIPES
        self._all = 0
        self._passed: dict[str, int] = {}

    def of(self, key: str) -> int:
        """Return the stamp of a key, to be taken before the engine is read."""
        return self._stripes[hash(key) % STRIPES] + self._all + self._passed.get(key, 0)

    def change(self, key: str) -> None:
        """Refuse the fills of a key that began before now, and of a 1,024th of all others."""
        self._stripes[hash(key) % STRIPES] += 1

    def change_all(self) -> None:
        """Refuse all fills that began before now."""
        self._all += 1

    def pass_by(self, key: str) -> None:
        """Refuse the fills of this very key that began before now: for what happens so often that stripes would keep
        others from being filled.
        """
        self._passed[key] = self._passed.get(key, 0) + 1
        if len(self._passed) > MOST_PASSED:
            self._all += 1 + max(self._passed.values())
            self._passed = {}
