"""Rows about locks, rate limits and sessions in a server, and about limits in this process."""

from bench.row import BEST, US, Contender, Row, Target
from bench.rows_shared import OURS, OURS_REMOTE

REDIS_LOCK = "redis-py Lock"
LOCK = ("redis", "hiredis")
WAITERS_ASK = "waiters ask every 100 ms"


def _ours(build: str, name: str = US, note: str = "") -> Contender:
    return Contender(name, build, "nearcache", OURS_REMOTE, note=note)


LOCKS = (
    Row(
        "locks-pairs",
        "locks",
        "lock and unlock that nobody else wants, TCP",
        "locks",
        (
            _ours("locks:nearcache_pairs", note="with a fencing token"),
            Contender(REDIS_LOCK, "locks:redis_pairs", "locks", LOCK),
            Contender("python-redis-lock", "locks:redis_lock_pairs", "locks", ("python-redis-lock", *LOCK)),
        ),
        "cpu",
        rounds=60,
        calls=200,
        targets=(Target(BEST, 0.6),),
        url="tcp",
    ),
    Row(
        "locks-handoff",
        "locks",
        "a lock passes from one process to another that waits for it, TCP",
        "locks",
        (
            _ours("locks:nearcache", note="waiters are told"),
            _ours("locks:nearcache_async", "nearcache, asyncio", "waiters are told"),
            Contender(REDIS_LOCK, "locks:redis", "locks", LOCK, note=WAITERS_ASK),
            Contender("redis-py Lock, asyncio", "locks:redis_async", "locks", LOCK, note=WAITERS_ASK),
            Contender(
                "python-redis-lock", "locks:redis_lock", "locks", ("python-redis-lock", *LOCK), note="waiters are told"
            ),
        ),
        "p50",
        kind="handoff",
        rounds=100,
        calls=1,
        targets=(Target(REDIS_LOCK, 0.1),),
        url="tcp",
    ),
)


def _limits(kind: str, case: str, title: str, *notes: str) -> Row:
    ours, limits, throttled = notes
    return Row(
        f"limits-{case.replace('_', '-')}",
        "limits",
        title,
        "limits",
        (
            _ours(f"limits:nearcache_{case}", note=ours),
            Contender(f"limits, {kind}", f"limits:limits_{case}", "limits", ("limits", *LOCK), note=limits),
            Contender(
                f"throttled-py, {kind}", f"limits:throttled_{case}", "limits", ("throttled-py", *LOCK), note=throttled
            ),
        ),
        "cpu",
        rounds=60,
        calls=200,
        targets=(Target(BEST, 0.7),),
        url="tcp",
    )


NOT_TOGETHER = "three trips; what one consumes stays so if the next refuses"
LIMITS = (
    _limits("fixed windows", "fixed", "a fixed limit is decided, TCP", "", "", ""),
    _limits("fixed windows", "fixed_three", "three fixed limits are decided, TCP", "one trip", *(NOT_TOGETHER,) * 2),
    _limits("sliding windows", "sliding", "a sliding limit is decided, TCP", "exact", "exact", "an estimate"),
    _limits(
        "sliding windows",
        "sliding_three",
        "three sliding limits are decided, TCP",
        "exact; one trip",
        f"exact; {NOT_TOGETHER}",
        f"an estimate; {NOT_TOGETHER}",
    ),
    Row(
        "limits-memory",
        "limits",
        "a fixed limit is decided in this process",
        "limits",
        (
            Contender(US, "limits:nearcache_fixed", "nearcache", OURS),
            Contender("limits, fixed windows", "limits:limits_fixed", "limits", ("limits",)),
            Contender("throttled-py, fixed windows", "limits:throttled_fixed", "limits", ("throttled-py",)),
        ),
        rounds=60,
        calls=2_000,
        targets=(Target("limits, fixed windows", 1.0),),
    ),
)


def _sessions(verb: str, title: str) -> Row:
    shared = ("redis", "hiredis")
    return Row(
        f"sessions-{verb}",
        "sessions",
        title,
        "sessions",
        (
            _ours(f"sessions:nearcache_{verb}", note="other changes at the same time are kept"),
            Contender("redis-py + json", f"sessions:redis_{verb}", "redis", shared, note="the last save wins"),
            Contender(
                "Django sessions",
                f"sessions:django_{verb}",
                "redis",
                ("django", "django-redis", *shared),
                note="pickle; the last save wins",
            ),
        ),
        "cpu",
        rounds=60,
        calls=200,
        url="tcp",
        main=False,
    )


SESSIONS = (
    _sessions("load", "a session of five fields is loaded, TCP"),
    _sessions("save", "a session of five fields is saved, one of which has changed, TCP"),
)
