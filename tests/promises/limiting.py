"""Processes that consume units of one limiter as fast as they can, and note what was admitted; run as a module, one of
them. It says when it is ready, and begins when it is told a line. Before, it may consume some, and wait until it knows
of so many workers.

When something was admitted is what the engine's script had for the time: it returns that with the receipt. Engines
without scripts have it in their receipts.
"""

import asyncio
import json
import sys
import time
from contextlib import ExitStack
from typing import Any

from nearcache import AsyncCache, Cache, Verdict
from nearcache._engine import limits
from nearcache.backends.limits import LimitAsk, LimitGrant
from nearcache.backends.redis import backend as redis_backend
from nearcache.backends.redis import lua
from nearcache.backends.redis.limits import RedisLimits
from nearcache.backends.redis.lua import script
from nearcache.backends.registers import limits as register_limits
from nearcache.backends.registers.base import Answer, Put
from nearcache.near import shares, stock
from tests.faces import Awaited
from tests.promises.helpers import broken

CONSUMES = "if allowed == 1 and verb == 'hit' then"
"""Where a script decides and consumes."""


Admitted = tuple[str, int, float, float]
"""A receipt, how many units, and when (seconds since 1970) that was asked for and answered."""


async def work(order: dict[str, Any]) -> tuple[list[Admitted], float]:
    """Hit for so many seconds; return what was admitted, and how well the engine's time was known, in seconds."""
    kind: Any = Cache if order["flavour"] == "sync" else AsyncCache
    face = Awaited(kind(order["url"], namespace=order["namespace"], timeout=order.get("timeout", 10.0), observers=()))
    limiter = Awaited.__new__(Awaited)
    terms = {"kind": order["kind"], "lease": order.get("lease")}
    limiter.cache, limiter.is_async = face.cache.limiter("a", *order["limits"], **terms), face.is_async
    admitted, time_of_engine, error = list[Admitted](), face.cache._engine.backend.time, 0.0
    with ExitStack() as stack:
        stack.enter_context(broken(redis_backend, "script", lambda name: defective(name, order)))
        if order["defect"] == "careless":
            stack.enter_context(broken(RedisLimits, "hit", careless(RedisLimits.hit)))
        if order["defect"] == "hands out twice":
            stack.enter_context(broken(stock, "_split", lambda batches, cost: [(batches[-1], cost)]))
        if order["defect"] == "swaps blindly":
            stack.enter_context(broken(register_limits, "Swap", swaps_blindly))
        stack.enter_context(broken(shares, "BEAT", order.get("beat", shares.BEAT)))
        if "workers" in order:  # who was ready first is counted until the last one is
            stack.enter_context(broken(limits, "LIFE", 600.0))
        await limiter.peek("me")  # it is connected
        for _ in range(order.get("before", 0)):
            assert await limiter.hit("me")
        while face.cache._engine.core.shares.workers < order.get("workers", 0):
            await limiter.peek("me")
        if order["defect"] == "knows of nobody else":
            face.cache._engine.core.shares.workers = 1
        print("ready", flush=True)
        sys.stdin.readline()
        until, cost = time.monotonic() + order["seconds"], 1
        while time.monotonic() < until:
            asked = time.time()
            verdict: Verdict = await limiter.hit("me", cost)
            error = max(error, time_of_engine.latest() - time_of_engine.earliest())
            if verdict:
                receipt = verdict._spent[0].receipt if verdict._spent else ""
                admitted.append((receipt, cost, asked, time.time()))
                cost = 3 - cost
    await face.close()
    return admitted, error


def swaps_blindly(name: str, _seen: Answer, raw: bytes, ttl: float) -> Put:
    """Store a record whatever has become of it since it was read."""
    return Put(name, raw, ttl)


def careless(hit: Any) -> Any:
    """Look first, then consume: what is wrong with it is that others come in between."""

    async def check_then_consume(self: RedisLimits, ask: LimitAsk) -> LimitGrant:
        looked = await self.peek(ask)
        if not looked.admitted:
            return looked
        grant: LimitGrant = await hit(self, ask)
        return grant

    return check_then_consume


def defective(name: str, order: dict[str, Any]) -> lua.Script:
    """Return a script that tells the time with its receipts, and has the defect that is asked for, if any."""
    made = script(name)
    if not name.startswith("limit_"):
        return made
    real = made.text
    assert CONSUMES in real
    assert "receipt = consume()" in real
    text = real.replace("receipt = consume()", "receipt = consume() .. '@' .. text(now)")
    if order["defect"] == "careless":
        text = text.replace(CONSUMES, "if verb == 'hit' then\n    allowed = 1")
    if order["defect"] == "counts what it refuses":
        text = text.replace(CONSUMES, "if verb == 'hit' then")
    return lua.made(text)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(json.loads(sys.argv[1])))))
