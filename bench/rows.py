"""What is measured: groups, rows, contenders and targets, as data."""

from bench.row import BEST, BEST_WITH_TTL, ONE, US, Contender, Kind, Measure, Row, Target
from bench.rows_coherence import COHERENCE
from bench.rows_coordination import LIMITS, LOCKS, SESSIONS
from bench.rows_hazelcast import HAZELCAST
from bench.rows_memcached import MEMCACHED
from bench.rows_shared import EXPIRY, OURS, OURS_REMOTE, TAGS
from bench.work import MANY, TASKS, THREADS

__all__ = ["BEST", "BEST_WITH_TTL", "ONE", "US", "Contender", "Kind", "Measure", "Row", "Target"]

GROUPS = {
    "near": "hits in this process, through the decorator and through `get`",
    "near-async": "hits in this process, through the decorator, in asyncio",
    "remote": "hits, writes and batches in a server, by one thread",
    "remote-async": "hits and batches in a server, in asyncio, with uvloop too",
    "threads": "hits in a server by 16 threads of one process",
    "memcached": "hits, writes and batches on Memcached, by threads and in asyncio",
    "hazelcast": "hits, writes and batches on Hazelcast, by one thread and in asyncio",
    "expiry": "loads when a value expires that 4 processes read",
    "tags": "invalidation by tags, and what tags cost",
    "coherence": "near values that other processes change",
    "locks": "locks in a server: taken and given back, and passed to somebody who waits",
    "limits": "decisions of rate limits, in a server and in this process",
    "sessions": "sessions in a server, loaded and saved",
    "eviction": "reads of a full near tier, by its size",
    "memory": "the memory of a million values in this process",
    "import": "import, construct and ask once",
}


def _near(name: str, kind: str, *packages: str, ttl: bool = True, note: str = "") -> Contender:
    return Contender(name, f"near:{kind}", "near", packages, ttl, note)


NEARCACHE = Contender(US, "near:Nearcache", "nearcache", OURS)
LRU_CACHE = _near("functools.lru_cache", "LruCache", ttl=False, note="no TTL")
CACHEBOX = _near("cachebox", "Cachebox", "cachebox")
MOKA = _near("moka-py", "Moka", "moka-py")
CACHETOOLS = _near("cachetools", "Cachetools", "cachetools", note="no lock: one thread only")
LOCKED_CACHETOOLS = _near("cachetools with a lock", "LockedCachetools", "cachetools")
THEINE = _near("theine", "Theine", "theine")
DOGPILE = _near("dogpile.cache memory", "Dogpile", "dogpile.cache")
PICKLED_DOGPILE = _near("dogpile.cache memory_pickle", "PickledDogpile", "dogpile.cache")
NEAR_PEERS = (LRU_CACHE, CACHEBOX, MOKA, CACHETOOLS, LOCKED_CACHETOOLS, THEINE, DOGPILE)
NEAR_ASYNC = (
    Contender(US, "near:AsyncNearcache", "nearcache", OURS),
    _near("async_lru", "AsyncLru", "async-lru"),
    _near("cashews mem://", "Cashews", "cashews"),
    _near("aiocache memory", "Aiocache", "aiocache"),
    CACHEBOX,
    MOKA,
    THEINE,
)


def _decorated(case: str, title: str, *more: Contender, targets: tuple[Target, ...] = ()) -> Row:
    contenders = (NEARCACHE, *NEAR_PEERS, *more)
    return Row(f"near-{case}", "near", f"near hit, decorator: {title}", case, contenders, targets=targets)


NEAR = (
    _decorated("int", "one int argument", targets=(Target("functools.lru_cache", 3.0), Target(BEST_WITH_TTL, 0.5))),
    _decorated("str", "one str argument"),
    _decorated("method", "a method"),
    _decorated("dataclass", "a frozen dataclass as result"),
    _decorated("dict", "a dict as result", PICKLED_DOGPILE),
    _decorated("nested", "a dict with a list and a dict in it as result", PICKLED_DOGPILE),
    Row(
        "near-get",
        "near",
        "near hit, `cache.get`",
        "store",
        (
            Contender(US, "store:nearcache", "nearcache", OURS),
            Contender("cachetools TTLCache.get", "store:cachetools_get", "near", ("cachetools",), note="no lock"),
            Contender("cachetools TTLCache[…]", "store:cachetools_item", "near", ("cachetools",), note="no lock"),
            Contender("cachebox VTTLCache.get", "store:cachebox", "near", ("cachebox",)),
            Contender("moka-py Moka.get", "store:moka", "near", ("moka-py",)),
            Contender("cachelib SimpleCache.get", "store:cachelib", "near", ("cachelib",)),
            Contender("dogpile.cache memory", "store:dogpile", "near", ("dogpile.cache",)),
        ),
        targets=(Target("cachetools TTLCache.get", 0.2), Target("moka-py Moka.get", 1.0)),
    ),
)

NEAR_ASYNC_ROWS = tuple(
    Row(
        f"near-{case}",
        "near-async",
        f"near hit, decorator, asyncio: {title}",
        case,
        NEAR_ASYNC,
        kind="awaits",
        targets=targets,
    )
    for case, title, targets in (
        ("async-int", "one int argument", (Target("async_lru", 0.35),)),
        ("async-dict", "a dict as result", ()),
    )
)

REDIS = "redis-py + json"


def _ours(build: str) -> Contender:
    return Contender(US, build, "nearcache", OURS_REMOTE)


def _redis(build: str) -> Contender:
    return Contender(REDIS, build, "redis", ("redis", "hiredis"))


GETTERS = (
    _ours("remote:nearcache_get"),
    _redis("remote:redis_get"),
    Contender(
        "dogpile.cache redis", "remote:dogpile_get", "redis", ("dogpile.cache", "redis", "hiredis"), note="pickle"
    ),
    Contender(
        "django-redis", "remote:django_get", "redis", ("django-redis", "django", "redis", "hiredis"), note="pickle"
    ),
    Contender("valkey-glide + json", "remote:glide_get", "glide", ("valkey-glide-sync",)),
)

REMOTE = (
    Row(
        "remote-get",
        "remote",
        "remote hit, a dict of 5 fields, unix socket",
        "get",
        GETTERS,
        "cpu",
        rounds=100,
        calls=300,
        targets=(Target(REDIS, 0.5),),
        url="unix",
        command="get",
    ),
    Row(
        "remote-get-tcp",
        "remote",
        "remote hit, a dict of 5 fields, TCP",
        "get",
        GETTERS,
        "cpu",
        rounds=100,
        calls=300,
        targets=(Target(REDIS, 0.5),),
        url="tcp",
        command="get",
        main=False,
    ),
    Row(
        "remote-set",
        "remote",
        "remote set, a dict of 5 fields, unix socket",
        "set",
        (_ours("remote:nearcache_set"), _redis("remote:redis_set")),
        "cpu",
        rounds=100,
        calls=300,
        targets=(Target(REDIS, 0.55),),
        url="unix",
        command="set",
    ),
    Row(
        "remote-many",
        "remote",
        f"`get_many` of {MANY}, unix socket",
        "many",
        (_ours("remote:nearcache_many"), _redis("remote:redis_many")),
        "cpu",
        rounds=100,
        calls=30,
        targets=(Target(REDIS, 0.6),),
        url="unix",
        command="mget",
    ),
)

ASYNC_REDIS = "redis-py asyncio + json"
GLIDE = "valkey-glide + json"
ASYNC_PAIR = (
    _ours("remote_async:nearcache"),
    Contender(ASYNC_REDIS, "remote_async:redis", "redis", ("redis", "hiredis")),
)
CONCURRENT = (
    *ASYNC_PAIR,
    Contender("coredis + json", "remote_async:coredis", "coredis", ("coredis",)),
    Contender(GLIDE, "remote_async:glide", "glide", ("valkey-glide",)),
    Contender("cashews redis", "remote_async:cashews", "cashews", ("cashews", "redis", "hiredis"), note="pickle"),
    Contender("aiocache redis", "remote_async:aiocache", "aiocache", ("aiocache", "redis", "hiredis"), note="json"),
)
REMOTE_ASYNC = (
    *(
        Row(
            f"remote-tasks-{loop}",
            "remote-async",
            f"remote hits, {TASKS} tasks, distinct keys, {loop}, TCP",
            "tasks",
            CONCURRENT,
            kind="awaits",
            rounds=20,
            calls=2_000,
            targets=(Target(ASYNC_REDIS, 8.0, throughput=True), Target(GLIDE, 3.0, throughput=True)),
            url="tcp",
            uvloop=loop == "uvloop",
            command="get",
        )
        for loop in ("asyncio", "uvloop")
    ),
    Row(
        "remote-one-async",
        "remote-async",
        "remote hit, asyncio, one call after the other, unix socket",
        "one",
        ASYNC_PAIR,
        kind="awaits",
        rounds=100,
        calls=300,
        targets=(Target(ASYNC_REDIS, 0.8),),
        url="unix",
        command="get",
    ),
    Row(
        "remote-many-async",
        "remote-async",
        f"`get_many` of {MANY}, asyncio, unix socket",
        "many",
        ASYNC_PAIR,
        "cpu",
        kind="awaits",
        rounds=100,
        calls=30,
        targets=(Target(ASYNC_REDIS, 0.6),),
        url="unix",
        command="mget",
    ),
)

THREADED = (
    Row(
        "remote-threads",
        "threads",
        f"remote hits, {THREADS} threads, unix socket",
        "threads",
        (
            _ours("remote:nearcache_get"),
            _redis("remote:redis_get"),
            Contender(GLIDE, "remote:glide_get", "glide", ("valkey-glide-sync",)),
        ),
        rounds=20,
        calls=THREADS * 200,
        targets=(Target(REDIS, 1.5, throughput=True),),
        url="unix",
        command="get",
    ),
)

MEMORY = (
    Row(
        "memory",
        "memory",
        "memory for one value, int to a dict of 100 bytes",
        "memory",
        (NEARCACHE, CACHETOOLS, CACHEBOX, MOKA),
        "bytes",
        kind="memory",
        rounds=1,
        calls=1_000_000,
        targets=(Target("cachetools", 1.0),),
    ),
)

TEN_THOUSAND = "nearcache, 10,000 entries"

EVICTION = (
    Row(
        "eviction",
        "eviction",
        "a read of a full near tier of 1,000,000 entries, half of them a miss that inserts and evicts",
        "eviction",
        (
            Contender(US, "eviction:million", "nearcache", OURS, note="1,000,000 entries"),
            Contender("nearcache, 100,000 entries", "eviction:hundred_thousand", "nearcache", OURS),
            Contender(TEN_THOUSAND, "eviction:ten_thousand", "nearcache", OURS),
        ),
        rounds=60,
        targets=(Target(TEN_THOUSAND, 1.3),),
    ),
)

START = (
    Row(
        "import",
        "import",
        "import, construct, first `get` on `memory://`",
        "start",
        (
            Contender(US, "nearcache", "nearcache", OURS),
            Contender("import redis", "redis", "redis", ("redis", "hiredis"), note="the import alone"),
            Contender("cashews mem://", "cashews", "near", ("cashews",)),
            Contender("dogpile.cache memory", "dogpile", "near", ("dogpile.cache",)),
        ),
        kind="start",
        rounds=15,
        calls=1,
        targets=(Target("import redis", 1.0),),
    ),
)

ROWS: tuple[Row, ...] = (
    *NEAR,
    *NEAR_ASYNC_ROWS,
    *REMOTE,
    *REMOTE_ASYNC,
    *THREADED,
    *MEMCACHED,
    *HAZELCAST,
    *EXPIRY,
    *TAGS,
    *COHERENCE,
    *LOCKS,
    *LIMITS,
    *SESSIONS,
    *EVICTION,
    *MEMORY,
    *START,
)


def find(name: str) -> Row:
    """Return the row of a name."""
    return next(row for row in ROWS if row.name == name)


def of_group(group: str) -> tuple[Row, ...]:
    """Return the rows of a group, in order."""
    return tuple(row for row in ROWS if row.group == group)
