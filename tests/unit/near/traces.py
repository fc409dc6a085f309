"""Request traces of others, read from where they lie: `NEARCACHE_TRACES`, or beside the project."""

import gzip
import lzma
import os
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
