"""Traces as they lie on disk, and as every contender gets them: one file of numbered objects.

They belong to others and are not part of the project: they are read from `NEARCACHE_TRACES`, or from
`../shared/traces` beside the checkout. The file that contenders get is libCacheSim's "oracle" format: of each request
the number, the object, its size, and the number of the next request for it.
"""

import gzip
import io
import lzma
import os
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.traces.catalogue import Trace
from tools.source import ROOT

REQUEST = struct.Struct("<IQIq")
NEVER_AGAIN = -1

Requests = Iterator[tuple[int, int]]
"""Objects and their sizes, in the order in which they were asked for."""


@dataclass(frozen=True)
class Played:
    """A trace in the form in which it is played: the file, its requests and objects, and what all objects weigh."""

    path: Path
    requests: int
    unique: int
    weight: int


def folder() -> Path:
    """Return where the traces lie."""
    return Path(os.environ.get("NEARCACHE_TRACES") or ROOT.parent / "shared" / "traces")


def absent(traces: tuple[Trace, ...]) -> list[str]:
    """Return the files of traces that are not there."""
    return sorted({trace.file for trace in traces if not (folder() / trace.file).exists()})


def prepare(trace: Trace, target: Path) -> Played:
    """Write a trace in the form in which it is played; an object keeps the size with which it was first seen."""
    numbers, sizes = array("Q"), [0]
    known: dict[int, int] = {}
    for thing, size in FORMATS[trace.format](folder() / trace.file):
        number = known.get(thing)
        if number is None:
            number = known[thing] = len(known) + 1
            sizes.append(size if trace.unit == "bytes" else 1)
        numbers.append(number)
    target.write_bytes(_packed(numbers, sizes))
    return Played(target, len(numbers), len(known), sum(sizes))


def objects(path: Path) -> "tuple[array[int], array[int]]":
    """Return the numbers and the sizes of the objects asked for."""
    numbers, sizes = array("Q"), array("Q")
    for _, number, size, _ in REQUEST.iter_unpack(path.read_bytes()):
        numbers.append(number)
        sizes.append(size)
    return numbers, sizes


def _packed(numbers: "array[int]", sizes: list[int]) -> bytes:
    pack, following = REQUEST.pack, next_requests(numbers)
    return b"".join(pack(at, number, sizes[number], following[at]) for at, number in enumerate(numbers))


def next_requests(numbers: "array[int]") -> "array[int]":
    """Return for each request when its object is asked for again, counted from 1.

    >>> list(next_requests(array("Q", [7, 8, 7])))
    [3, -1, -1]
    """
    following = array("q", bytes(8 * len(numbers)))
    seen: dict[int, int] = {}
    for at in range(len(numbers) - 1, -1, -1):
        following[at] = seen.get(numbers[at], NEVER_AGAIN)
        seen[numbers[at]] = at + 1
    return following


def _twitter(path: Path) -> Requests:
    for line in _zstd_lines(path):
        if not line.startswith("#"):
            _, thing, size, _ = line.split(",")
            yield int(thing), int(size)


def _blocks(path: Path) -> Requests:
    for line in _zstd_lines(path):
        start, count = map(int, line.split()[:2])
        yield from ((block, 1) for block in range(start, start + count))


def _disk(path: Path) -> Requests:
    lines = _zstd_lines(path)
    column = next(lines).strip().split(",").index("lbn")
    return ((int(line.split(",")[column]), 1) for line in lines)


def _numbers(path: Path) -> Requests:
    return ((number, 1) for (number,) in struct.iter_unpack(">I", lzma.decompress(path.read_bytes())))


def _lines(path: Path) -> Requests:
    lines = gzip.decompress(path.read_bytes()).decode().split()
    return ((int(line), 1) for line in lines if line != "*")


def _zstd_lines(path: Path) -> Iterator[str]:
    import zstandard  # here: workers read no zstd, and their environments need not have it

    with path.open("rb") as file, io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file)) as lines:
        yield from lines


FORMATS: dict[str, Callable[[Path], Requests]] = {
    "twitter": _twitter,
    "blocks": _blocks,
    "disk": _disk,
    "numbers": _numbers,
    "lines": _lines,
}
