"""Request traces of others, read from where they lie: `NEARCACHE_TRACES`, or beside the project."""

import gzip
import lzma
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("NEARCACHE_TRACES") or Path(__file__).parents[4] / "shared" / "traces")


def require(name: str) -> Path:
    """Return the path of a trace, or skip the test and say what is missing."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"no trace {name} in {FOLDER}; set NEARCACHE_TRACES to the folder that has it")
    return path


def web12() -> Iterator[str]:
    """Yield the product pages asked for of a web shop."""
    data = lzma.decompress(require("cache2k_web12.trace.xz").read_bytes())
    for start in range(0, len(data), 4):
        yield data[start : start + 4].hex()


def lirs(name: str) -> Iterator[str]:
    """Yield one of the small patterns made against LRU by the authors of LIRS."""
    text = gzip.decompress(require(f"lirs_{name}.trace.gz").read_bytes()).decode()
    return (line.strip() for line in text.splitlines() if line.strip() not in {"", "*"})


def unpacked(name: str) -> Iterator[str]:
    """Yield the lines of a trace that was packed by zstd."""
    command = ["zstd", "-dcq", str(require(name))]
    try:
        lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    except FileNotFoundError:
        pytest.skip("no zstd to unpack the trace with")
    return iter(lines)


def twitter52_sizes() -> Iterator[tuple[str, int]]:
    """Yield the keys asked for of a cache of Twitter, with the sizes of the values."""
    for line in unpacked("twitter_cluster52.csv.zst"):
        if not line.startswith("#"):
            _, key, size, _ = line.split(", ")
            yield key, int(size)


def twitter52() -> Iterator[str]:
    """Yield the keys asked for of a cache of Twitter."""
    return (key for key, _ in twitter52_sizes())


def oltp() -> Iterator[str]:
    """Yield the blocks that a database asked for."""
    for line in unpacked("OLTP.lis.zst"):
        start, count, *_ = line.split()
        yield from map(str, range(int(start), int(start) + int(count)))


def cloud() -> Iterator[str]:
    """Yield the blocks that a virtual machine asked for."""
    return (line.rpartition(",")[2] for line in unpacked("cloudPhysicsIO.csv.zst") if not line.startswith("version"))
