"""Find out what your engine and the rights of its user offer, and what you can rely on there.

Every part of the cache is tried, on a key of its own in the namespace of the cache, which is removed at the end; other
caches notice nothing. Then the settings of the engine are looked at. What is not as it should be comes with what to do.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from nearcache import Cache
from nearcache._checkup import Check, examine
from nearcache.cli.options import cache_of

FIXED: Final = "near values live for `staleness`, however seldom they change"
SPARED: Final = "near values are forgotten together, or live for `staleness`"
MOVED: Final = "not while a Memcached server is away, nor when it is back: its keys have moved to the others"
HALVES: Final = "until the cluster falls into halves: when they meet, one of them gives up what it acknowledged"
LOST: Final = "until a fail-over loses what was acknowledged; repeated by running processes"

VERDICTS: Final[dict[bool | None, str]] = {True: "works", False: "fails", None: "-"}

GUARANTEES: Final[dict[str, dict[str, str]]] = {
    "One load, however many ask": {
        "leases": "what is loaded cannot be stored, and is loaded again and again",
        "messages": "who waits for another process looks again after 5 seconds only",
        "sharing": "each process loads for itself",
        "asking": "who waits for another process asks now and then; a loader that died has its key for 30 seconds",
        "servers": "keys of a server that does not answer are loaded again and again",
        "fail-over": "a fail-over may add a load",
        "halves": "each half of a cluster that has fallen apart may load",
    },
    "Invalidation beats an earlier load": {
        "leases": "what is loaded cannot be stored",
        "tags": "tags, and everything, cannot be invalidated, or reads are misses",
        "servers": "invalidations wait for a server that does not answer",
        "eject": MOVED,
        "fail-over": LOST,
        "halves": HALVES,
    },
    "You read what you wrote": {
        "values": "not everything can be stored and read",
        "counters": "incr does not work",
        "stream": "changes that cannot be announced fail",
    },
    "How old a near value may be": {
        "tracking": FIXED,
        "near": FIXED,
        "ring": SPARED,
        "eject": MOVED,
        "fail-over": LOST,
        "halves": "each half of a cluster that has fallen apart is told of its own changes alone",
    },
    "After a restart or a fail-over": {
        "tags": "marks of tags cannot be given back",
        "persistence": "what was deleted before the last minute comes back with a snapshot",
        "settings": "a restart may be taken for a broken connection, and the other way round",
        "sharing": "nothing outlives the process",
        "fail-over": "what no running process knows is lost with the primary",
        "halves": HALVES,
    },
}
"""Sections of docs/guarantees.md, and what is left of each without one of the parts that it takes, or by `NATURE`."""

NATURE: Final = frozenset({"sharing", "fail-over", "asking", "near", "eject", "halves"})
"""What limits an engine of its kind, or was asked for, so that there is nothing to mend."""


def configure(parser: ArgumentParser) -> None:
    """Add the options of this command: those of a cache that have no variable, and matter here."""
    parser.add_argument("--bus", choices=("tracking", "stream"), default="tracking", help="as in Cache(bus=...)")
    parser.add_argument("--on-reset", choices=("repeat", "clear"), default="repeat", help="as in Cache(on_reset=...)")


def run(options: Namespace) -> int:
    """Examine and print; return 1 if something is not as it should be."""
    cache = cache_of(options, bus=options.bus, on_reset=options.on_reset)
    checks = examine(cache)
    print(json.dumps(document(cache, checks), indent=1) if options.json else table(cache, checks))
    return int(any(map(is_finding, checks)))


def is_finding(check: Check) -> bool:
    """Tell whether there is something to do."""
    return check.works is False or bool(check.advice)


def held(checks: Sequence[Check]) -> dict[str, str]:
    """Return what is wanting of each guarantee, "" if nothing is; no guarantees if the engine cannot be reached."""
    wanting = {check.name for check in checks if is_finding(check) or check.name in NATURE}
    if "connection" in wanting:
        return {}
    return {title: "; ".join(lack for part, lack in of.items() if part in wanting) for title, of in GUARANTEES.items()}


def table(cache: Cache, checks: Sequence[Check]) -> str:
    """Return everything for people."""
    findings = sum(map(is_finding, checks))
    rows = [line for check in checks for line in lines(check)]
    promises = [f"{title:37}{f'limited: {lack}' if lack else 'holds'}" for title, lack in held(checks).items()]
    about = ["", "what you can rely on (docs/guarantees.md)", *promises] if promises else []
    return "\n".join([repr(cache), "", *rows, *about, "", f"things to mend: {findings or 'none'}"])


def lines(check: Check) -> list[str]:
    """Return the lines about one thing."""
    first = f"{check.name:13}{VERDICTS[check.works]:8}{check.found}"
    return [first, f"{'':21}=> {check.advice}"] if check.advice else [first]


def document(cache: Cache, checks: Sequence[Check]) -> dict[str, Any]:
    """Return everything for programs."""
    return {
        "cache": repr(cache),
        "findings": sum(map(is_finding, checks)),
        "checks": [asdict(check) for check in checks],
        "guarantees": [{"title": title, "holds": not lack, "lack": lack} for title, lack in held(checks).items()],
    }
