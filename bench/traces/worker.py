"""One contender through one trace, in a process of its own: `python -m bench.traces.worker FILE TRACE NAME CAPACITY…`.

It prints one line of JSON: the versions, and for each capacity how many percent of the requests, and of their bytes,
were hits. A hit that returns another value, or a contender that holds more than it may, is an error.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.contenders import traces as contenders
from bench.found import versions
from bench.rows import Contender
from bench.subject import peer
from bench.traces import reading
from bench.traces.catalogue import PUBLIC, find
from bench.worker import claim_output

PARTS = 20
"""How often a contender is asked what it holds, while a trace is played."""
TABLE_BITS = 18


class CheatError(Exception):
    """A contender answered with a wrong value, or holds more than it may."""


def main() -> None:
    """Play, and say what came of it."""
    out = claim_output()
    path, trace, name, *capacities = sys.argv[1:]
    contender = next(one for one in (*find(trace).contenders, PUBLIC) if one.name == name)
    by_bytes = find(trace).unit == "bytes"
    try:
        found = [play(Path(path), contender, int(capacity), by_bytes=by_bytes) for capacity in capacities]
        said: dict[str, Any] = {"versions": versions(contender), "hits": found}
    except Exception as error:  # noqa: BLE001 -- whatever a peer raises, its line says so
        said = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(said), file=out, flush=True)


def play(path: Path, contender: Contender, capacity: int, *, by_bytes: bool) -> tuple[float, float]:
    """Return the percent of requests and of bytes that were hits."""
    room, _, policy = contender.build.partition(":")
    if room == "policy":
        return simulate(path, policy, capacity)
    cache = getattr(contenders, room)(capacity, by_bytes)
    numbers, sizes = reading.objects(path)
    keys = [f"objects:{number}" for number in numbers]
    return ask(cache, keys, list(sizes if by_bytes else numbers), capacity)


def simulate(path: Path, policy: str, capacity: int) -> tuple[float, float]:
    """Have libCacheSim play a trace with its default parameters."""
    library = peer("libcachesim")
    reader = library.TraceReader(str(path), library.TraceType.ORACLE_GENERAL_TRACE)
    misses, missed_bytes = getattr(library, policy)(capacity, hashpower=TABLE_BITS).process_trace(reader)
    return 100 * (1 - misses), 100 * (1 - missed_bytes)


def ask(cache: contenders.Kept, keys: list[str], values: list[int], capacity: int) -> tuple[float, float]:
    """Ask for every key, and put its value where it misses; return the percent of keys, and of the sum of values."""
    hits = weight = 0
    step = max(1, len(keys) // PARTS)
    for start in range(0, len(keys), step):
        part = asked(cache, keys[start : start + step], values[start : start + step])
        hits, weight = hits + part[0], weight + part[1]
        if (held := cache.held()) > capacity:
            raise CheatError(f"it holds {held} with room for {capacity}")
    return 100 * hits / len(keys), 100 * weight / sum(values)


def asked(cache: contenders.Kept, keys: list[str], values: list[int]) -> tuple[int, int]:
    """Return how many keys were hits, and the sum of their values."""
    get, put, missing = cache.get, cache.put, cache.missing
    hits = weight = 0
    for key, value in zip(keys, values, strict=True):
        answer = get(key)
        if answer is missing:
            put(key, value)
        elif answer == value:
            hits += 1
            weight += value
        else:
            raise CheatError(f"the answer for {key} is {answer!r}, not {value!r}")
    return hits, weight


if __name__ == "__main__":
    main()
