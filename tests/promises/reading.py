"""A process that reads and loads when it is told to: `python -m tests.promises.reading URL NAMESPACE SOCKET`.

Each line it gets is a JSON object; it answers with one line when all its readers have an answer. Its loader counts in
the engine, over a connection that knows nothing of the library, and ends when the test has put a gate there.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from nearcache import Cache
from nearcache.backends.base import Grant
from nearcache.backends.redis.leases import RedisLeases
from tests.promises.helpers import Crowd
from tests.servers import ask


class Process:
    """What one process does."""

    def __init__(self, url: str, namespace: str, socket: str) -> None:
        self.cache = Cache(url, namespace=namespace, pool_min=1, observers=())
        self.engine = Path(socket)

    def count(self, key: str) -> int:
        """Note that a loader of this key runs; return how many have."""
        return int(ask(self.engine, "INCR", f"loads:{key}"))

    def open(self, key: str) -> bool:
        """Whether the loader may end."""
        return bool(ask(self.engine, "EXISTS", f"gate:{key}"))

    def load(self, key: str, fails: bool) -> str:
        """Load, blocking."""
        number = self.count(key)
        while not self.open(key):
            time.sleep(0.005)
        if fails:
            raise ZeroDivisionError
        return f"load {number}"

    async def aload(self, key: str, fails: bool) -> str:
        """Load, awaiting."""
        number = self.count(key)
        while not self.open(key):
            await asyncio.sleep(0.005)
        if fails:
            raise ZeroDivisionError
        return f"load {number}"

    def read(self, key: str, threads: int, tasks: int, fails: bool = False, **options: Any) -> dict[str, Any]:
        """Let a crowd read; tell what they got, and how long it took."""
        began = time.monotonic()
        crowd = Crowd()
        if threads:
            crowd.threads(threads, lambda: self.cache.get_or_load(key, lambda: self.load(key, fails), **options))
        if tasks:
            crowd.tasks(
                tasks, lambda: self.cache.aio.get_or_load(key, lambda: self.aload(key, fails), **options), loops=1
            )
        outcomes = crowd.start().finish()
        return {
            "values": [outcome.get() for outcome in outcomes if outcome.error is None],
            "errors": [f"{type(outcome.error).__name__}: {outcome.error}" for outcome in outcomes if outcome.error],
            "began": began,
            "ended": time.monotonic(),
        }


def always_lead() -> None:
    """Take the leases away."""

    async def acquire(_: RedisLeases, asks: list[Any]) -> list[Grant]:
        return [Grant(leads=True) for _ in asks]

    RedisLeases.acquire = acquire  # type: ignore[assignment, method-assign]


def main(url: str, namespace: str, socket: str, *mutations: str) -> None:
    """Do what the lines say."""
    if "always_lead" in mutations:
        always_lead()
    process = Process(url, namespace, socket)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(process.read(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
