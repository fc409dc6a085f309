"""`make bench`: what a hit costs, beside `functools.lru_cache` near and redis-py with `json` far.

Blocks of the contenders take turns, and the smallest block of each counts, because the machine's noise only ever adds.
Only ratios of one run mean anything. Every contender's answer is checked before it is timed.
"""

import functools
import json
import time
from collections.abc import Callable

import redis

from nearcache import Cache
from tests.servers import redis_server

ROW = {"id": 7, "name": "Ada Lovelace", "email": "ada@example.com", "tags": ["a", "b"], "score": 0.5}

Work = Callable[[], object]


def main() -> None:
    """Print one table."""
    report("near hit, one int argument", near(), rounds=200, calls=5_000)
    with redis_server("valkey") as server:
        report("remote hit, a dict of 5 fields, blocking", far(str(server.socket)), rounds=60, calls=300)


def near() -> dict[str, tuple[Work, object]]:
    """Return functions over values in this process, each with the answer it must give."""
    cache = Cache("memory://", namespace="bench")
    cache.set("squares:7", 49)

    @cache.cached("decorated:{n}")
    def decorated(n: int) -> int:
        return n * n

    @functools.lru_cache
    def remembered(n: int) -> int:
        return n * n

    return {
        "functools.lru_cache (no TTL)": (lambda: remembered(7), 49),
        "Cache.get": (lambda: cache.get("squares:7"), 49),
        "@cache.cached": (lambda: decorated(7), 49),
    }


def far(socket: str) -> dict[str, tuple[Work, object]]:
    """Return reads of one value over a unix socket, decoded, each with the answer it must give."""
    client = redis.Redis(unix_socket_path=socket)
    client.set("bench:json:7", json.dumps(ROW), ex=3600)
    cache = Cache(f"unix://{socket}?db=0", namespace="bench", near=None)
    cache.set("rows:7", ROW)
    return {
        "redis-py get + json.loads": (lambda: json.loads(client.get("bench:json:7")), ROW),  # type: ignore[arg-type]
        "Cache.get, near tier off": (lambda: cache.get("rows:7"), ROW),
    }


def report(title: str, contenders: dict[str, tuple[Work, object]], rounds: int, calls: int) -> None:
    """Time the contenders in turn and print each one's best, with its ratio to the first."""
    for name, (work, expected) in contenders.items():
        assert work() == expected, f"{name} is wrong"
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, (work, _) in contenders.items():
            best[name] = min(best[name], seconds(work, calls))
    first = next(iter(best.values()))
    print(f"\n{title}")
    for name, taken in best.items():
        print(f"  {name:32}{taken * 1e6:10.2f} µs{taken / first:8.2f} x")


def seconds(work: Work, calls: int) -> float:
    """Return the seconds of one call, over a block of them."""
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls


if __name__ == "__main__":
    main()
