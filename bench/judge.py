"""From samples to numbers: pure functions.

A contender's number is its smallest block, because the noise of a machine only ever adds; of starts, which differ for
more reasons than noise, it is the median, of loads the mean. Of commands it is the median block too: what a process
asks its server once a second, whatever is read, falls into some blocks and not into others. A ratio is that of two
numbers of one run, and a target is met when three runs in a row meet it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from bench import rows

RUNS = 3
"""How many runs in a row decide."""

Run = Mapping[str, Mapping[str, Any]]
"""One run of one row: the results by contender."""


@dataclass(frozen=True)
class Verdict:
    """A target, the contender it was compared with in each run, the ratios, and what they say."""

    target: rows.Target
    against: str
    ratios: tuple[float, ...]
    verdict: str


def number(row: rows.Row, result: Mapping[str, Any], measure: rows.Measure | None = None) -> float | None:
    """Return what one call takes in one run, in seconds (or bytes); None if it could not be measured."""
    samples: Sequence[float] = result.get(measure or row.measure, ())
    if not samples:
        return None
    how: dict[str, Callable[[Sequence[float]], float]] = {"loads": fmean, "commands": median, "wait": max}
    return how.get(measure or row.measure, median if row.kind == "start" else min)(samples)


def ratio(row: rows.Row, run: Run, against: str, *, throughput: bool = False) -> float | None:
    """Return how many times nearcache takes what another contender takes, or has its throughput."""
    ours = number(row, run[rows.US])
    theirs = 1.0 if against == rows.ONE else number(row, run.get(against, {}))
    if ours is None or theirs is None:
        return None
    return theirs / ours if throughput else ours / theirs


def opponent(row: rows.Row, run: Run, target: rows.Target) -> str | None:
    """Return whom a target is about; the best one of a kind is another one in each run."""
    if target.against not in (rows.BEST, rows.BEST_WITH_TTL):
        return target.against
    peers = [one.name for one in row.contenders if one.name != rows.US and (one.ttl or target.against == rows.BEST)]
    numbers = {name: number(row, run.get(name, {})) for name in peers}
    found = {name: value for name, value in numbers.items() if value is not None}
    return min(found, key=lambda name: found[name]) if found else None


def judge(row: rows.Row, runs: Sequence[Run], target: rows.Target) -> Verdict:
    """Say whether a target was met."""
    names = [opponent(row, run, target) or "" for run in runs]
    ratios = [ratio(row, run, name, throughput=target.throughput) for run, name in zip(runs, names, strict=True)]
    found = tuple(one for one in ratios if one is not None)
    against = ", ".join(dict.fromkeys(name for name in names if name)) or target.against
    return Verdict(target, against, found, verdict(found, len(runs), target))


def verdict(ratios: Sequence[float], runs: int, target: rows.Target) -> str:
    """Say in words what ratios mean for a target."""
    if not runs or len(ratios) < runs:
        return "not measured"
    if not all(reached(one, target) for one in ratios):
        return "missed"
    return "met" if runs >= RUNS else f"met in {runs} of the {RUNS} runs that it takes"


def reached(value: float, target: rows.Target) -> bool:
    """Tell whether one ratio reaches the target."""
    return value >= target.limit if target.throughput else value <= target.limit
