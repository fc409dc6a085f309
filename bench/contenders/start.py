"""The first moment of a program: import, construct, ask once. Each runs in a fresh interpreter."""

PROGRAMS = {
    "nearcache": """
from nearcache import Cache
cache = Cache("memory://")
assert cache.get("users:1") is None
""",
    "redis": """
import redis
""",
    "cashews": """
import asyncio
from cashews import cache
cache.setup("mem://")
assert asyncio.run(cache.get("users:1")) is None
""",
    "dogpile": """
from dogpile.cache import make_region
region = make_region().configure("dogpile.cache.memory")
assert not region.get("users:1")
""",
}

TIMED = """
import time
cpu, wall = time.process_time(), time.perf_counter()
{program}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def program(name: str) -> str:
    """Return a program that prints the seconds it took: those of its processor, those of the clock."""
    return TIMED.format(program=PROGRAMS[name])
