"""Rows about what processes share: loads when a value expires, and tags."""

from bench.row import ONE, US, Contender, Row, Target
from bench.work import PROCESSES, READERS

OURS = ("nearcache", "msgspec", "prometheus-client")
OURS_REMOTE = (*OURS, "redis", "hiredis")


def _ours(build: str, name: str = US, note: str = "") -> Contender:
    return Contender(name, build, "nearcache", OURS_REMOTE, note=note)


def _redis(name: str, build: str, *packages: str, note: str = "") -> Contender:
    return Contender(name, build, "redis", (*packages, "redis", "hiredis"), note=note)


def _cashews(name: str, build: str, note: str = "") -> Contender:
    return Contender(name, build, "cashews", ("cashews", "redis", "hiredis"), note=note)


EXPIRY = (
    Row(
        "expiry-loads",
        "expiry",
        f"loads for each expiry of one key, {PROCESSES * READERS} readers in {PROCESSES} processes, TCP",
        "expiry",
        (
            _ours("expiry:nearcache", note="threads"),
            _ours("expiry:nearcache_async", "nearcache, asyncio", note="tasks"),
            _cashews("cashews early", "expiry:cashews_early", note="tasks; early_ttl is the TTL"),
            _cashews("cashews lock", "expiry:cashews_lock", note="tasks"),
            _redis("dogpile.cache redis", "expiry:dogpile", "dogpile.cache", note="threads; distributed_lock"),
            Contender(
                "aiocache cached_stampede",
                "expiry:aiocache",
                "aiocache",
                ("aiocache", "redis", "hiredis"),
                note="tasks; lease of 0.5 s",
            ),
            _redis("Django get_or_set", "expiry:django", "django", note="threads"),
            Contender(
                "cachetools with a lock",
                "expiry:cachetools",
                "near",
                ("cachetools",),
                note="threads; each process for itself",
            ),
            Contender(
                "cachetools with a condition",
                "expiry:cachetools_condition",
                "near",
                ("cachetools",),
                note="threads; each process for itself",
            ),
        ),
        "loads",
        kind="crowd",
        rounds=5,
        calls=1,
        targets=(Target(ONE, 1.0),),
        url="tcp",
    ),
    Row(
        "expiry-tail",
        "expiry",
        "p99.9 of reads near an expiry, stale values being served, against that of the other reads, TCP",
        "expiry",
        (
            _ours("expiry:nearcache_stale", note="threads"),
            _ours("expiry:nearcache_stale_async", "nearcache, asyncio", note="tasks"),
            _cashews("cashews early", "expiry:cashews_early", note="tasks; early_ttl is the TTL"),
            _redis("dogpile.cache redis", "expiry:dogpile", "dogpile.cache", note="threads; distributed_lock"),
        ),
        "tail",
        kind="crowd",
        rounds=10,
        calls=1,
        targets=(Target(ONE, 2.0),),
        url="tcp",
    ),
)

ONE_ENTRY = "nearcache, 1 entry"
THOUSAND = "nearcache, 1,000 entries"
NO_MARKS = "nearcache, no tag invalidated"
NO_TAGS = "nearcache, values without tags"

TAGS = (
    Row(
        "tags-invalidate",
        "tags",
        "invalidate a tag of 100,000 entries, near tier of 1,000, unix socket",
        "tags",
        (
            _ours("tags:invalidate_hundred_thousand", note="100,000 entries"),
            _ours("tags:invalidate_thousand", THOUSAND),
            _ours("tags:invalidate_one", ONE_ENTRY),
        ),
        rounds=10,
        calls=1,
        targets=(Target(THOUSAND, 1.2), Target(ONE_ENTRY, 2.0)),
        url="unix",
    ),
    Row(
        "tags-marks",
        "tags",
        "remote hit after 100,000 distinct tags were invalidated, unix socket",
        "tags",
        (
            _ours("tags:marked", note="the value has two tags, and is older than half of the invalidations"),
            _ours("tags:unmarked", NO_MARKS),
        ),
        "cpu",
        rounds=40,
        calls=300,
        targets=(Target(NO_MARKS, 1.1),),
        url="unix",
        command="get",
    ),
    Row(
        "tags-hits",
        "tags",
        "remote hits of 10,000 values with a tag each, unix socket",
        "tags",
        (
            _ours("tags:hits_warm", note="read before"),
            _ours("tags:hits_cold", "nearcache, first look", note="a new process asks for each tag"),
            _ours("tags:hits_without", NO_TAGS, note="a new process"),
        ),
        "cpu",
        rounds=12,
        calls=10_000,
        targets=(Target(NO_TAGS, 1.1),),
        url="unix",
        command="get",
    ),
    Row(
        "tags-miss",
        "tags",
        "commands that the server runs for each miss, those of scripts included, unix socket",
        "tags",
        (
            _ours("tags:miss_tagged", note="two tags"),
            _ours("tags:miss", NO_TAGS),
            _redis("dogpile.cache redis", "tags:dogpile_miss", "dogpile.cache", note="distributed_lock; no tags"),
            _redis("Django get_or_set", "tags:django_miss", "django", note="no lock; no tags"),
        ),
        "commands",
        rounds=10,
        calls=200,
        targets=(Target(NO_TAGS, 1.0),),
        url="unix",
        main=False,
    ),
)
