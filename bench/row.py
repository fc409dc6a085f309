"""What a row of the bench is: its contenders, how they are measured, and its targets.

A target compares nearcache with another contender of the row: what one of them takes divided by what the other takes.
"""

from dataclasses import dataclass, field
from typing import Literal

Measure = Literal[
    "wall",
    "cpu",
    "bytes",
    "loads",
    "wait",
    "tail",
    "tail_near",
    "tail_else",
    "commands",
    "p50",
    "p99",
    "longest",
    "stale",
    "rate",
]
Kind = Literal["calls", "awaits", "memory", "start", "crowd", "hits", "visible", "handoff"]

US = "nearcache"
BEST = "the best peer"
BEST_WITH_TTL = "the best peer with a TTL"
ONE = "one, which is wanted"
"""What a target is against that wants a number, and no comparison."""


@dataclass(frozen=True)
class Contender:
    """One contender: its name in tables, its builder in `bench.contenders`, its environment and its packages."""

    name: str
    build: str
    environment: str
    packages: tuple[str, ...]
    ttl: bool = True
    note: str = ""
    writes: int = 0
    """How many writes of other values another process makes in each second of a row of kind "hits"."""


@dataclass(frozen=True)
class Target:
    """nearcache takes at most `limit` times what `against` takes (or has at least `limit` times its throughput)."""

    against: str
    limit: float
    throughput: bool = False


@dataclass(frozen=True)
class Row:
    """One row: `rounds` blocks of `calls` calls for each contender, in turns; `measure` is what targets compare."""

    name: str
    group: str
    title: str
    case: str
    contenders: tuple[Contender, ...]
    measure: Measure = "wall"
    kind: Kind = "calls"
    rounds: int = 100
    calls: int = 5_000
    targets: tuple[Target, ...] = ()
    url: Literal["", "unix", "tcp", "memcached", "hazelcast"] = ""
    uvloop: bool = False
    command: str = ""
    """The command that the server must have counted once for each call; on Memcached at least once for each key."""
    main: bool = True
    """Whether the row stands in the README."""
    notes: tuple[str, ...] = field(default=())
    server: str = ""
    """The package whose redis-server it takes; without it, it is Valkey."""
    processes: int = 1
    """How many processes read at once in a row of kind "hits"."""
    busy: int = 0
    """How many threads of the reader compute meanwhile in a row of kind "visible"."""

    @property
    def kept(self) -> tuple[Measure, ...]:
        """What is kept and shown of each contender."""
        if self.kind == "crowd":
            return ("loads", "wait") if self.measure == "loads" else ("tail", "tail_near", "tail_else")
        if self.kind == "visible":
            return "p50", "p99", "longest", "stale"
        if self.kind == "handoff":
            return "p50", "p99", "longest"
        if self.kind == "hits":
            return (self.measure,)
        if self.measure == "commands":
            return "commands", "cpu", "wall"
        return ("cpu", "wall") if self.url or self.kind == "start" else (self.measure,)

    def contender(self, name: str) -> Contender:
        """Return the contender of a name."""
        return next(contender for contender in self.contenders if contender.name == name)
