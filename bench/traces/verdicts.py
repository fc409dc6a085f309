"""What the figures say: whether they can be trusted, and how far nearcache is from the best; pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.parent import BenchError
from bench.rows import US
from bench.traces import catalogue
from bench.traces.catalogue import FIXED, GDSF, OPTIMUM, PUBLIC, PUBLISHED, PUBLISHED_BY_BYTES, TRACES, WITHIN, Trace

AGREES = 0.1
"""Points between our figures of a policy and those that others published."""
AGREES_HASHED = 0.3
"""The same for W-TinyLFU, whose sketch depends on how objects are numbered."""
AGREES_PUBLIC = 0.5
"""Points between nearcache's near tier and its verbs, which write and read the record too."""
ABOVE_OPTIMUM = 0.5
"""Points above the optimum, which must take in every object: a cache that turns some away can be a little better."""

Traces = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Behind:
    """How far a contender is behind the best of the fixed policies where it is farthest behind."""

    points: float
    trace: str
    capacity: int


def insist(traces: Traces) -> list[str]:
    """Return what was checked; raise `BenchError` if something is wrong with the figures."""
    if problems := [*disagreements(traces), *above_the_optimum(traces), *other_than_its_verbs(traces)]:
        raise BenchError("; ".join(problems))
    return [
        "Every hit returned the value that was put there, and nobody held more than it may.",
        f"The policies agree with published figures within {AGREES} points (W-TinyLFU, which hashes: {AGREES_HASHED}).",
        f"Nobody is more than {ABOVE_OPTIMUM} points above the optimum.",
        f"`get` and `set` on `memory://` reach what the near tier reaches, within {AGREES_PUBLIC} points.",
    ]


def disagreements(traces: Traces) -> list[str]:
    """Return where a policy differs from what others published."""
    found: list[str] = []
    for (name, share), figures in (PUBLISHED | PUBLISHED_BY_BYTES).items():
        for policy, expected in figures.items() if name in traces else ():
            value = at(traces, name, policy, share)
            if abs(value - expected) > (AGREES_HASHED if policy == "W-TinyLFU" else AGREES):
                found.append(f"{policy} on {name} at {share:g}: {value}, but others published {expected}")
    return found


def at(traces: Traces, name: str, contender: str, capacity: float) -> float:
    """Return the hits of a contender in percent, at one of the capacities of the catalogue."""
    hits: Sequence[float] = traces[name]["hits"][contender]
    return hits[catalogue.find(name).capacities.index(capacity)]


def above_the_optimum(traces: Traces) -> list[str]:
    """Return who is better than can be."""
    return [
        f"{contender} on {name} at {capacity}: {value}, but the optimum is {best}"
        for name, trace in traces.items()
        for contender, hits in measured(trace).items()
        for capacity, value, best in zip(trace["capacities"], hits, trace["hits"][OPTIMUM], strict=True)
        if value > best + ABOVE_OPTIMUM
    ]


def other_than_its_verbs(traces: Traces) -> list[str]:
    """Return where `get` and `set` reach something else than the near tier alone."""
    return [
        f"{PUBLIC.name} on {name} at {capacity}: {verbs}, but its near tier {tier}"
        for name, trace in traces.items()
        if PUBLIC.name in trace["hits"]
        for capacity, verbs, tier in zip(
            trace["capacities"], trace["hits"][PUBLIC.name], trace["hits"][US], strict=True
        )
        if abs(verbs - tier) > AGREES_PUBLIC
    ]


def measured(trace: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the hits of all contenders that have some."""
    return {name: hits for name, hits in trace["hits"].items() if not isinstance(hits, str)}


def by_entries(traces: Traces) -> dict[str, Mapping[str, Any]]:
    """Return the traces that were bounded by entries, in the order of the catalogue."""
    return {trace.name: traces[trace.name] for trace in TRACES if trace.unit == "entries" and trace.name in traces}


def mean(traces: Traces, contender: str) -> float | None:
    """Return the mean hits of a contender in percent: of each trace over its capacities, then over the traces."""
    means = [fmean(measured(trace)[contender]) for trace in by_entries(traces).values() if contender in measured(trace)]
    return fmean(means) if len(means) == len(by_entries(traces)) else None


def behind(traces: Traces, contender: str) -> Behind | None:
    """Return where a contender is farthest behind the best of the fixed policies."""
    found = [
        Behind(max(traces[name]["hits"][one][index] for one in FIXED) - value, name, trace["capacities"][index])
        for name, trace in by_entries(traces).items()
        for index, value in enumerate(measured(trace).get(contender, ()))
    ]
    return max(found, key=lambda one: one.points, default=None)


def misses_of(traces: Traces) -> int:
    """Count the capacities at which nearcache is farther behind the best of the fixed policies than it may be."""
    return sum(
        max(trace["hits"][one][index] for one in FIXED) - value > WITHIN + 1e-9
        for trace in by_entries(traces).values()
        for index, value in enumerate(trace["hits"][US])
    )


@dataclass(frozen=True)
class Target:
    """What nearcache is to reach, what it reaches, and whether that is enough."""

    goal: str
    reached: str
    met: bool


def targets(traces: Traces) -> list[Target]:
    """Return what became of the targets."""
    found = [near_the_best(traces), above_on_average(traces)] if by_entries(traces) else []
    return found + [as_good_as_gdsf(name, trace) for name, trace in traces.items() if GDSF in measured(trace)]


def near_the_best(traces: Traces) -> Target:
    """Compare nearcache with whichever fixed policy is the best, at each capacity."""
    worst = behind(traces, US) or Behind(0, "", 0)
    count, missed = sum(len(trace["capacities"]) for trace in by_entries(traces).values()), misses_of(traces)
    goal = f"at every capacity within {WITHIN} points of the best of {', '.join(FIXED)}"
    farthest = f"at worst {max(0.0, worst.points):.2f} behind ({worst.trace}, {worst.capacity:,})"
    return Target(goal, f"at {count - missed} of {count}; {farthest}", not missed)


def above_on_average(traces: Traces) -> Target:
    """Compare the means of all traces."""
    ours, others = mean(traces, US) or 0.0, {one: mean(traces, one) or 0.0 for one in FIXED}
    best = max(others, key=lambda one: others[one])
    return Target("on average above each of them", f"{ours:.2f} %; {best} {others[best]:.2f} %", ours > others[best])


def as_good_as_gdsf(name: str, trace: Mapping[str, Any]) -> Target:
    """Compare nearcache with GDSF by bytes."""
    points = [ours - theirs for ours, theirs in zip(trace["hits"][US], trace["hits"][GDSF], strict=True)]
    shares = catalogue.find(name).capacities
    told = ", ".join(f"{point:+.2f} at {100 * share:g} %" for point, share in zip(points, shares, strict=True))
    return Target("by bytes as many hits as GDSF", f"{told} of the bytes (points)", min(points) >= 0)


def table(trace: Trace, figures: Mapping[str, Any]) -> str:
    """Return the figures of a trace as text for the terminal."""
    lines = [f"\n{trace.title}: {figures['requests']:,} requests, hits in percent"]
    lines.append(" " * 26 + "".join(f"{capacity:>10,}" for capacity in figures["capacities"]))
    for name, hits in figures["hits"].items():
        numbers = f"NOT MEASURED: {hits}" if isinstance(hits, str) else "".join(f"{value:>10.2f}" for value in hits)
        lines.append(f"  {name:24}{numbers}")
    return "\n".join(lines)


def text(traces: Traces) -> str:
    """Return what became of the targets, as text for the terminal."""
    return "\n".join(
        ["\ntargets", *(f"  {one.goal}: {one.reached}: {'met' if one.met else 'missed'}" for one in targets(traces))]
    )
