"""A process that saves one field of a session again and again, while others save theirs; run as a module.

It says when it is ready, and begins when it is told a line. What it has noted is its last line.
"""

import asyncio
import inspect
import json
import sys
from contextlib import ExitStack
from typing import Any

from nearcache import AsyncCache, Cache, SessionLostError

AFTERWARDS = 20
"""How often it saves again what is lost."""


async def work(order: dict[str, Any]) -> dict[str, int]:
    """Save so often, or until the session is lost; return how often that was acknowledged, and how often refused."""
    kind: Any = Cache if order["flavour"] == "sync" else AsyncCache
    cache = kind(order["url"], namespace=order["namespace"], timeout=10.0, near=None, observers=())
    done = {"saved": 0, "refused": 0}
    with ExitStack() as stack:
        if order["defect"] == "careless":
            from tests.promises.test_sessions import careless  # it takes long to import

            stack.enter_context(careless())
        session = await result_of(cache.sessions.load(order["id"]))
        print("ready", flush=True)
        sys.stdin.readline()
        while done["saved"] < order["times"] and done["refused"] < AFTERWARDS:
            session = await result_of(cache.sessions.load(order["id"])) or session
            session[order["field"]] = done["saved"] + 1
            if order["defect"] == "everything":
                session._stored.clear()
            try:
                await result_of(cache.sessions.save(session))
            except SessionLostError:
                done["refused"] += 1
            else:
                done["saved"] += 1
    await result_of(cache.close() if kind is Cache else cache.aclose())
    return done


async def result_of(result: Any) -> Any:
    """Return what either flavour brings."""
    return await result if inspect.isawaitable(result) else result


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(json.loads(sys.argv[1])))))
