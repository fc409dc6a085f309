"""Measure nearcache on your own engine, beside the bare client where there is one.

Near hits, hits in the engine, writes and batches, blocking and in asyncio. Every answer is checked before it is timed,
and afterwards the cache has counted as many hits as there were calls. What is written goes into a namespace of its own
and is removed at the end; what could not be removed expires after ten minutes. The namespace's own record stays.
"""

import json
import os
import platform
from argparse import ArgumentParser, Namespace
from asyncio import Runner
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from nearcache import Cache, CacheError
from nearcache.cli.measure import bare, ours
from nearcache.cli.measure.blocks import MeasureError, Taken, Work, in_turns
from nearcache.cli.options import cache_of, positive

NAMESPACE: Final = "nearcache-bench"
MOST_SECONDS: Final = 30.0
"""A run takes twelve times as long, and must end before its keys expire (ten minutes, less the jitter)."""
PACKAGES: Final = ("nearcache", "msgspec", "redis", "hiredis")
HEAD: Final = (
    f"{'microseconds for each call, the best block in brackets':58}{'calls/s':>12}{'wall':>20}{'client CPU':>20}"
)


@dataclass(frozen=True)
class Row:
    """What was measured of one thing: nearcache, and the bare client if there is one."""

    name: str
    title: str
    nearcache: Taken
    bare: Taken | None


def configure(parser: ArgumentParser) -> None:
    """Add the options of this command."""
    about = "how long each thing is measured (default: 1)"
    parser.add_argument("--seconds", type=positive(MOST_SECONDS), default=1.0, metavar="N", help=about)


def run(options: Namespace) -> int:
    """Measure and print; raises `CacheError` if the engine fails or an answer is wrong."""
    near, far = cache_of(options, namespace=NAMESPACE), cache_of(options, namespace=NAMESPACE, near=None)
    with ExitStack() as stack:
        runner = opened(near, far, stack)
        beside = bare.works(url_of(options), NAMESPACE, runner, stack)
        rows = measured(ours.works(near, far, runner), beside, options.seconds)
        if options.json:
            print(json.dumps(document(far, list(rows)), indent=1))
        else:
            print_table(far, rows)
    return 0


def url_of(options: Namespace) -> str:
    """Return the URL for the bare client; empty if only `CACHE_TYPE` says where the cache is."""
    return options.url if options.url is not None else os.environ.get("CACHE_URL", "")


def opened(near: Cache, far: Cache, stack: ExitStack) -> Runner:
    """Connect, and return a runner for asyncio; the stack removes what was written, then closes what was opened."""
    runner = stack.enter_context(Runner())
    for cache in (near, far):
        stack.enter_context(cache)
        stack.callback(removed, cache)
    stack.callback(lambda: runner.run(far.aio.aclose()))
    return runner


def measured(works: dict[str, Work], beside: dict[str, Work], seconds: float) -> Iterator[Row]:
    """Measure one row after the other."""
    failures: tuple[type[Exception], ...] = (MeasureError, *bare.errors())
    for name, work in works.items():
        try:
            taken = in_turns([work, *([beside[name]] if name in beside else [])], seconds)
        except failures as error:
            raise MeasureError(f"{ours.TITLES[name]}: {error}") from error
        yield Row(name, ours.TITLES[name], taken[0], taken[1] if len(taken) > 1 else None)


def removed(cache: Cache) -> None:
    """Remove what was written, if the engine is still there."""
    with suppress(CacheError):
        cache.delete_many(ours.KEYS)


def print_table(cache: Cache, rows: Iterator[Row]) -> None:
    """Print each row as soon as it is measured."""
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    print(f"{cache!r}\n{packages}\n\n{HEAD}", flush=True)
    for row in rows:
        print(row_text(row), flush=True)


def row_text(row: Row) -> str:
    """Return a row as text: a line for each contender, and one for the ratio."""
    lines = [line(row.title, bare.US, row.nearcache)]
    if row.bare is not None:
        lines.append(line("", bare.NAME, row.bare))
        wall, cpu = (f"{value:.2f} ×" for value in ratios(row.nearcache, row.bare))
        lines.append(f"{'':40}{'nearcache takes':30}{wall:>20}{cpu:>20}")
    return "\n".join(lines)


def line(title: str, name: str, taken: Taken) -> str:
    """Return one contender of a row."""
    numbers = [f"{median * 1e6:.2f} ({best * 1e6:.2f})" for median, best in (taken.of_wall, taken.of_cpu)]
    return f"{title:40}{name:18}{taken.per_second:>12,.0f}{numbers[0]:>20}{numbers[1]:>20}"


def ratios(one: Taken, other: Taken) -> tuple[float, float]:
    """Return how many times the wall time and the processor time of another is taken, by the best blocks."""
    return one.of_wall.best / other.of_wall.best, one.of_cpu.best / other.of_cpu.best


def document(cache: Cache, rows: list[Row]) -> dict[str, Any]:
    """Return everything for programs."""
    told = {"cache": repr(cache), "python": platform.python_version(), "versions": versions()}
    return told | {"rows": [row_document(row) for row in rows]}


def row_document(row: Row) -> dict[str, Any]:
    """Return a row for programs."""
    told: dict[str, Any] = {"name": row.name, "title": row.title, "nearcache": taken_document(row.nearcache)}
    if row.bare is not None:
        wall, cpu = (round(value, 3) for value in ratios(row.nearcache, row.bare))
        told |= {bare.NAME: taken_document(row.bare), "ratio": {"wall": wall, "cpu": cpu}}
    return told


def taken_document(taken: Taken) -> dict[str, Any]:
    """Return what one contender took, for programs."""
    spans = {"wall_us": taken.of_wall, "cpu_us": taken.of_cpu}
    shown = {
        name: {"median": round(span.median * 1e6, 3), "best": round(span.best * 1e6, 3)} for name, span in spans.items()
    }
    return {"per_second": round(taken.per_second), "blocks": len(taken.wall), **shown}


def versions() -> dict[str, str]:
    """Return the versions of what takes part, as far as it is installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
