"""`make bench`: nearcache side by side with what people use today.

    make bench                  all groups but traces, three times in a row as a target takes, in less than an hour
    make bench ROW=near         one group (or one row: its results are printed, not kept)
    make bench ROW=near RUNS=1  once
    make bench ROW=traces       hit ratios on request traces, about 3 minutes; once, because they come out the same
    make bench ROW=help         the groups and their rows

`python -m bench --quick` makes a few calls of each kind and keeps nothing: it shows that the bench works.
"""

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

from bench import checks, judge, report, results, rows, tables
from bench.parent import BenchError, measure
from bench.traces import run as traces


def main(arguments: list[str]) -> int:
    """Measure, print, keep; return 1 if nearcache failed or cheated."""
    options = parsed(arguments)
    if options.row == "help":
        print(overview())
        return 0
    try:
        if options.row == results.TRACES:
            return play(options)
        shown = checks.run()
        for group, chosen in selected(options.row).items():
            run_group(group, chosen, shown, options)
    except (BenchError, AssertionError) as error:
        print(f"bench: {error!r}", file=sys.stderr)
        return 1
    return 0


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser("python -m bench", description="Measure.")
    names = ["help", results.TRACES, *rows.GROUPS, *(row.name for row in rows.ROWS)]
    parser.add_argument("row", nargs="?", default="", choices=["", *names])
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    options.runs = options.runs or (1 if options.quick else judge.RUNS)
    return options


def overview() -> str:
    """Return the groups and their rows as text."""
    lines = [*(__doc__ or "").splitlines()[2:7], ""]
    for group, about in rows.GROUPS.items():
        lines += [f"{group:16}{about}", *(f"    {row.name:20}{row.title}" for row in rows.of_group(group))]
    return "\n".join(lines)


def selected(name: str) -> dict[str, tuple[rows.Row, ...]]:
    """Return the rows to measure, by group."""
    if name in rows.GROUPS:
        return {name: rows.of_group(name)}
    if name:
        return {rows.find(name).group: (rows.find(name),)}
    return {group: rows.of_group(group) for group in rows.GROUPS}


def run_group(group: str, chosen: tuple[rows.Row, ...], shown: list[str], options: argparse.Namespace) -> None:
    """Measure a group; print its rows, and keep them if the group is whole."""
    started = time.monotonic()
    runs: list[dict[str, Any]] = [{} for _ in range(options.runs)]
    for run in runs:
        for row in chosen:
            run[row.name] = measure(quick(row) if options.quick else row)
            print(tables.plain(row, [run[row.name]]), flush=True)
            insist(row, run[row.name])
    print(tables.verdicts(chosen, runs), flush=True)
    if chosen == rows.of_group(group) and not options.quick:
        results.save(group, runs, shown, (time.monotonic() - started) / 60)
        report.write()


def play(options: argparse.Namespace) -> int:
    """Play the traces and write what is made of their hit ratios; return 0."""
    traces.run(quick=options.quick)
    if not options.quick:
        report.write()
    return 0


def quick(row: rows.Row) -> rows.Row:
    """Return the row with a few calls only."""
    return replace(row, rounds=min(row.rounds, 3), calls=min(row.calls, 20_000))


def insist(row: rows.Row, run: judge.Run) -> None:
    """Raise if nearcache itself could not be measured."""
    if "error" in run[rows.US]:
        raise BenchError(f"{row.name}: {run[rows.US]['error']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
