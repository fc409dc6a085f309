"""Which of several servers a key belongs to, so that few keys move when a server comes or goes.

The ring is that of libmemcached with `ketama_weighted` and MD5: 160 points for each server, and a key belongs to the
first point at or behind its own. So other clients that are set up like this find the same keys on the same servers.
"""

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Final

POINTS: Final = 40
"""Digests for each server; each gives four points."""

UNNAMED_PORT: Final = 11211
"""The port that is not a part of a server's name on the ring."""

_FOUR: Final = struct.Struct("<4I")
_FIRST: Final = struct.Struct("<I")


class Ring:
    """Servers, by host and port, on a ring."""

    __slots__ = ("_owners", "_points", "size")

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        self.size: int = len(servers)
        placed = sorted((point, number) for number, server in enumerate(servers) for point in _points_of(*server))
        self._points = [point for point, _ in placed]
        self._owners = [number for _, number in placed]

    def of(self, key: str, without: Collection[int] = ()) -> int:
        """Return the place of a key's server in the list of servers; of those `without` which they are not all."""
        if self.size == 1:
            return 0
        (point,) = _FIRST.unpack_from(_digest(key))
        owners, at = self._owners, bisect_left(self._points, point)
        while (owner := owners[at % len(owners)]) in without:
            at += 1
        return owner


def _points_of(host: str, port: int) -> list[int]:
    name = host if port == UNNAMED_PORT else f"{host}:{port}"
    return [point for number in range(POINTS) for point in _FOUR.unpack(_digest(f"{name}-{number}"))]


def _digest(text: str) -> bytes:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()
