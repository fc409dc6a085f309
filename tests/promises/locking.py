"""Processes that take one lock and change one resource under it, and are stopped meanwhile; run as a module, one of
them.

The resource is a number in the engine, and no part of the library. Whoever has the lock reads it, and later writes what
it read plus one. It counts the writes it has accepted, so that a write that was built on an old reading shows: the
number is smaller then. A fenced resource refuses whoever comes with a token that is older than one it has seen.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nearcache import AsyncCache, Cache, LockLostError
from tests.faces import Awaited
from tests.promises.helpers import LIBRARY
from tests.servers import CHECKOUT, ask

LIFE = 1.0
"""Seconds that a lock lives unless it is renewed."""

STOPPED = 2.0
"""Seconds for which a process is stopped: longer than that."""

STEPS = ("before it reads", "before it writes", "before it gives back")
"""Where a process may be stopped while it holds the lock."""

FENCED = """
local seen = tonumber(redis.call('HGET', KEYS[1], 'seen') or 0)
if tonumber(ARGV[1]) < seen then
  redis.call('HINCRBY', KEYS[1], 'refused', 1)
  return -1
end
redis.call('HSET', KEYS[1], 'seen', ARGV[1])
if ARGV[2] == '' then
  redis.call('RPUSH', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[1], 'number', ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'accepted', 1)
end
return tonumber(redis.call('HGET', KEYS[1], 'number') or 0)
"""


class Resource:
    """What the lock protects."""

    def __init__(self, address: Path, name: str) -> None:
        self._address = address
        self._name = name

    def read(self, token: int) -> int:
        """Return the number; -1 for a token that is too old."""
        return self._call(token, "")

    def write(self, token: int, number: int) -> bool:
        """Store a number, unless the token is too old."""
        return self._call(token, str(number)) >= 0

    def _call(self, token: int, number: str) -> int:
        keys = (f"~test:{self._name}", f"~test:{self._name}:tokens")
        return int(ask(self._address, "EVAL", FENCED, 2, *keys, str(token), number, timeout=30.0))

    # For the judge

    def state(self) -> dict[str, int]:
        """Return the number, and how many writes were accepted, and how many calls refused."""
        told = ask(self._address, "HGETALL", f"~test:{self._name}")
        pairs = {key.decode(): int(value) for key, value in zip(told[::2], told[1::2], strict=True)}
        return {name: pairs.get(name, 0) for name in ("number", "accepted", "refused")}

    def tokens(self) -> list[int]:
        """Return the tokens of those who read it, in order."""
        return [int(token) for token in ask(self._address, "LRANGE", f"~test:{self._name}:tokens", 0, -1)]


class Order:
    """What a process is to do."""

    def __init__(self, **told: Any) -> None:
        self.url: str = told["url"]
        self.namespace: str = told["namespace"]
        self.address = Path(told["address"])
        self.kind: str = told["kind"]
        self.flavour: str = told["flavour"]
        self.rounds: int = told["rounds"]
        self.stops: int = told["stops"]
        self.seed: int = told["seed"]
        self.fair: bool = told["fair"]
        self.patience: float = told["patience"]


async def work(order: Order) -> Counter[str]:
    """Change the resource so many times."""
    dice, did, steps = random.Random(order.seed), Counter[str](), itertools.count()
    stops = set(dice.sample(range(len(STEPS) * order.rounds), order.stops))
    resource = Resource(order.address, order.namespace)
    made = (Cache if order.flavour == "sync" else AsyncCache)(order.url, namespace=order.namespace, timeout=10.0)
    face = Awaited(made)

    def perhaps_stop(step: str) -> None:
        if next(steps) in stops:
            did[f"stopped {step}"] += 1
            os.kill(os.getpid(), signal.SIGSTOP)

    for _ in range(order.rounds):
        try:
            async with taken(order, face) as token:
                perhaps_stop(STEPS[0])
                number = resource.read(token)
                perhaps_stop(STEPS[1])
                if number >= 0:
                    did["written" if resource.write(token, number + 1) else "refused"] += 1
                perhaps_stop(STEPS[2])
        except LockLostError:
            did["told of the loss"] += 1
    await face.close()
    return did


@asynccontextmanager
async def taken(order: Order, face: Awaited) -> AsyncIterator[int]:
    """Hold the lock of this kind; a resource that is not fenced gets no token."""
    if order.kind == "plain":
        while ask(order.address, "SET", f"~lock:{order.namespace}", "1", "NX", "PX", int(LIFE * 1000)) is None:
            time.sleep(0.01)
        try:
            yield 0
        finally:
            ask(order.address, "DEL", f"~lock:{order.namespace}")
    else:
        async with face.lock("payment:42", ttl=LIFE, wait=order.patience, fair=order.fair) as held:
            yield held.token if order.kind == "fenced" else 0


# For the test


class Crew:
    """Processes that do this together, each of which is let go on some time after it stopped."""

    def __init__(self, orders: Sequence[dict[str, Any]]) -> None:
        path = f"{Path(LIBRARY).parent}{os.pathsep}{CHECKOUT}"
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.promises.locking", json.dumps(order)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": path},
            )
            for order in orders
        ]
        self._deadline = time.monotonic() + orders[0]["patience"]
        self.did: Counter[str] = Counter()

    def finish(self) -> Counter[str]:
        """Wait until all are done, and return what they did."""
        goes_on: dict[int, float] = {}
        running = {process.pid: process for process in self._processes}
        while running:
            assert time.monotonic() < self._deadline, f"{len(running)} processes never end"
            for pid in list(running):
                if goes_on.get(pid, time.monotonic() + 1.0) <= time.monotonic():
                    del goes_on[pid]
                    os.kill(pid, signal.SIGCONT)
                self._look(pid, running, goes_on)
            time.sleep(0.002)
        return self.did

    def _look(self, pid: int, running: dict[int, "subprocess.Popen[bytes]"], goes_on: dict[int, float]) -> None:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if not found:
            return
        if os.WIFSTOPPED(status):
            goes_on[pid] = time.monotonic() + STOPPED
            return
        process = running.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        said, complained = process.communicate()
        assert (process.returncode, complained) == (0, b""), complained.decode()
        self.did.update(json.loads(said))

    def kill(self) -> None:
        """End those that are left."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                process.communicate()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(Order(**json.loads(sys.argv[1]))))))
