"""Which traces are played, at which capacities, by whom, and what others measured: as data."""

from dataclasses import dataclass
from typing import Literal

from bench.row import US, Contender
from bench.rows_shared import OURS

Unit = Literal["entries", "bytes"]
OPTIMUM = "Belady (optimum)"
GDSF = "GDSF"


@dataclass(frozen=True)
class Trace:
    """One trace: the file, how its format is read (in `bench.traces.reading`), and the capacities to play it at.

    By `bytes`, the capacities are shares of what all objects together weigh.
    """

    name: str
    title: str
    file: str
    format: str
    capacities: tuple[float, ...]
    contenders: tuple[Contender, ...]
    unit: Unit = "entries"


def _policy(name: str, build: str, note: str = "") -> Contender:
    return Contender(name, f"policy:{build}", "policies", ("libcachesim",), note=note)


def _peer(name: str, build: str, package: str, note: str) -> Contender:
    return Contender(name, build, "near", (package,), note=note)


NEARCACHE = Contender(US, "nearcache", "nearcache", OURS, note="its near tier, with its defaults")
LRU = _policy("LRU", "LRU")
TWO_Q = _policy("2Q", "TwoQ")
ARC = _policy("ARC", "ARC")
S3_FIFO = _policy("S3-FIFO", "S3FIFO")
SIEVE = _policy("SIEVE", "Sieve")
W_TINY_LFU = _policy("W-TinyLFU", "WTinyLFU", "with a window of 1 %")
MOKA = _peer("moka-py", "moka", "moka-py", "Moka: TinyLFU, its default; an eviction may come a few writes late")

CONTENDERS = (
    NEARCACHE,
    LRU,
    TWO_Q,
    ARC,
    _policy("LIRS", "LIRS"),
    S3_FIFO,
    SIEVE,
    W_TINY_LFU,
    _peer("cachetools LRU", "cachetools_lru", "cachetools", "LRUCache; its TTLCache evicts the same entries"),
    _peer("cachetools LFU", "cachetools_lfu", "cachetools", "LFUCache"),
    _peer("cachebox", "cachebox", "cachebox", "TTLCache: first in, first out"),
    MOKA,
    _peer("theine", "theine", "theine", "Cache: adaptive W-TinyLFU"),
    _policy(OPTIMUM, "Belady", "knows the future"),
)
BY_BYTES = (
    NEARCACHE,
    LRU,
    TWO_Q,
    ARC,
    S3_FIFO,
    SIEVE,
    W_TINY_LFU,
    _policy(GDSF, "GDSF", "looks at sizes and frequencies"),
    _peer("cachetools LRU", "cachetools_lru", "cachetools", "LRUCache with `getsizeof`"),
    MOKA,
    _policy(OPTIMUM, "BeladySize", "knows the future; with sizes only nearly the optimum"),
)

PUBLIC = Contender(f"{US} by its verbs", "public_nearcache", "nearcache", OURS)
"""The same as a user asks it: too slow at a miss for the long traces, so it is only compared with what is measured."""
PUBLIC_TRACES = ("web12", "gli", "multi3")

FIXED = ("LRU", "ARC", "2Q", "S3-FIFO", "W-TinyLFU")
"""The policies nearcache is to keep up with, wherever each of them is at its best."""
WITHIN = 0.5
"""Points that nearcache may be behind the best of them."""

TRACES: tuple[Trace, ...] = (
    Trace(
        "twitter52",
        "Twitter, cluster 52: a key-value cache in production",
        "twitter_cluster52.csv.zst",
        "twitter",
        (144, 450, 1_435, 4_500, 14_354, 45_000, 100_000),
        CONTENDERS,
    ),
    Trace(
        "oltp",
        "OLTP: blocks asked for by a database",
        "OLTP.lis.zst",
        "blocks",
        (187, 590, 1_869, 5_900, 18_688, 59_000, 120_000),
        CONTENDERS,
    ),
    Trace(
        "web12",
        "web12: product pages of a web shop",
        "cache2k_web12.trace.xz",
        "numbers",
        (138, 300, 650, 1_376, 3_000, 6_500),
        CONTENDERS,
    ),
    Trace(
        "cloudphysics",
        "CloudPhysics: the disk of a virtual machine",
        "cloudPhysicsIO.csv.zst",
        "disk",
        (150, 490, 1_500, 4_897, 12_000, 24_000, 40_000),
        CONTENDERS,
    ),
    Trace(
        "loop",
        "loop: all objects in turn, again and again",
        "lirs_loop.trace.gz",
        "lines",
        (101, 160, 253, 400, 600, 800, 950),
        CONTENDERS,
    ),
    Trace(
        "gli",
        "gli: a text searched again and again",
        "lirs_gli.trace.gz",
        "lines",
        (101, 160, 253, 500, 900, 1_500, 2_200),
        CONTENDERS,
    ),
    Trace(
        "multi3",
        "multi3: four programs at once",
        "lirs_multi3.trace.gz",
        "lines",
        (100, 200, 372, 745, 1_500, 3_000, 5_500),
        CONTENDERS,
    ),
    Trace(
        "twitter52-bytes",
        "Twitter, cluster 52, bounded by bytes",
        "twitter_cluster52.csv.zst",
        "twitter",
        (0.003, 0.01, 0.03, 0.1, 0.3),
        BY_BYTES,
        unit="bytes",
    ),
)

_HEAD = ("LRU", "2Q", "ARC", "LIRS", "S3-FIFO", "SIEVE", "W-TinyLFU", OPTIMUM)
PUBLISHED: dict[tuple[str, float], dict[str, float]] = {
    (name, capacity): dict(zip(_HEAD, figures, strict=True))
    for name, capacity, *figures in (
        ("twitter52", 144, 50.51, 52.52, 51.55, 45.19, 51.28, 51.19, 45.78, 63.72),
        ("twitter52", 1435, 66.24, 70.38, 66.88, 64.25, 69.69, 67.84, 66.73, 76.14),
        ("twitter52", 14354, 79.32, 80.78, 80.03, 80.01, 81.24, 80.28, 80.68, 85.00),
        ("oltp", 187, 13.77, 17.77, 17.61, 14.66, 17.77, 9.10, 19.02, 35.01),
        ("oltp", 1869, 41.64, 45.88, 45.39, 41.63, 46.47, 40.30, 40.32, 59.76),
        ("oltp", 18688, 66.52, 67.67, 67.27, 65.66, 67.66, 66.66, 63.81, 76.21),
        ("web12", 138, 39.79, 41.67, 40.79, 35.83, 41.04, 40.35, 35.23, 58.54),
        ("web12", 1376, 68.49, 71.51, 70.89, 70.18, 72.12, 71.68, 70.56, 80.04),
        ("cloudphysics", 490, 16.21, 16.95, 17.25, 16.86, 16.96, 17.09, 15.36, 20.74),
        ("cloudphysics", 4897, 19.51, 22.58, 22.72, 24.82, 24.47, 20.93, 22.51, 37.10),
        ("loop", 101, 0.00, 0.00, 0.00, 9.87, 8.98, 0.00, 9.61, 9.89),
        ("gli", 253, 0.91, 1.00, 1.38, 16.23, 16.03, 1.38, 14.78, 17.84),
        ("multi3", 745, 35.49, 43.22, 38.97, 48.54, 47.72, 37.35, 47.00, 52.91),
    )
}
"""Hit ratios in percent that others measured with libCacheSim; a trace that is read wrongly gives others."""
PUBLISHED_BY_BYTES: dict[tuple[str, float], dict[str, float]] = {
    ("twitter52-bytes", 0.01): {"LRU": 65.85, "S3-FIFO": 69.12, GDSF: 72.07},
    ("twitter52-bytes", 0.1): {"LRU": 79.09, "S3-FIFO": 81.23, GDSF: 82.22},
}


def find(name: str) -> Trace:
    """Return the trace of a name."""
    return next(trace for trace in TRACES if trace.name == name)
