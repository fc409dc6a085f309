"""What is generated from `bench/results`: the README's table, docs/benchmarks.md, its picture and docs/staleness.svg.

And from the hit ratios of traces docs/eviction.md, with a picture for each trace. `python -m bench.report` writes all
of them anew; `make lint` fails when they differ. Without results there is no table and no page.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import chart, coherence, crowd, handoff, results, rows, staleness, tables
from bench.traces import page as eviction
from bench.work import BRIEF, LOAD, PROCESSES, READERS
from tools.source import ROOT

README = Path("README.md")
PAGE = Path("docs/benchmarks.md")
PICTURE = Path("docs/benchmarks.svg")
STALENESS = Path("docs/staleness.svg")
BLOCK = re.compile(r"(?<=<!-- bench -->\n).*?(?=<!-- /bench -->)", re.DOTALL)

Results = Mapping[str, Mapping[str, Any]]

TOLD = {
    "wall": f"Where others write, another process stores {coherence.OTHERS:,} other values again and again.",
    "rate": "The hits of all processes are counted together; what nearcache takes is the time for each.",
    "loads": "The mean number of loads, and the longest time that any reader waited.",
    "tail": (
        f"The slowest of a thousand reads that begin within {crowd.NEAR * 1000:g} ms of an expiry, and of the others."
    ),
}
"""What is told of several processes, by the measure of their row."""

HOW = """\
`make bench` measures everything here on your machine in at most 25 minutes; `make bench ROW=help` lists the groups.
This page, the picture and the table in the README are generated from `bench/results/*.json`, which hold every sample.

## How it is measured

- **Each contender has a process of its own**, in a virtual environment with the newest versions that go together
  (`bench/requirements/`), and is used as its documentation recommends. Blocks of calls take turns between the
  processes while the others wait, so that a slow moment of the machine meets all of them.
- **The smallest block counts**, because noise only ever adds; of starts it is the median, of loads the mean. Of
  commands it is the median as well: what a process asks its server once a second, whatever is read, falls into some
  blocks and not into others. Ratios are of one run; with several runs the middle one is shown, and the lowest and
  highest in brackets. A target is met when three runs in a row meet it.
- **The loop is the same for all**: it calls the contender's own callable, with nothing around it. Where a peer's answer
  needs a second call (`json.loads` after `get`), its loop makes both. Python's garbage collector is on.
- **Answers are checked before they are timed**, with their types. Where a dict is the result, the table says who hands
  out the stored object itself, which anybody can change for everybody: that is less work than nearcache does.
- **Client CPU** is the processor time of the whole client process, its threads included; the server is another process
  (Valkey, on the same machine).
- **Nothing is turned off**: nearcache runs with its defaults, Prometheus metrics included, except for the near tier in
  the rows about the server. After each row of hits its own statistics and Prometheus have grown by exactly the number
  of calls, and the server has counted exactly one command for each; else the bench fails. It fails too unless:
"""


def outputs(found: Results, traces: Mapping[str, Any] | None = None) -> dict[Path, str | None]:
    """Return what the generated files must be; None for a file that must not be there. The README's is its block."""
    drawn = eviction.outputs(traces)
    readme = block(found, traces) if found or traces else ""
    if not found:
        return {README: readme, PAGE: None, PICTURE: None, STALENESS: None} | drawn
    times = staleness.samples(found)
    pictures = {PICTURE: chart.svg(chart.bars(found)), STALENESS: staleness.svg(times) if times else None}
    return {README: readme, PAGE: page(found)} | pictures | drawn


def block(found: Results, traces: Mapping[str, Any] | None = None) -> str:
    """Return what stands in the README between the markers."""
    return "\n\n".join([*(speed(found) if found else []), *(hit_ratios(traces) if traces else []), ""])


def speed(found: Results) -> list[str]:
    """Return the README's part about time."""
    picture = f"![What nearcache takes, compared with others]({PICTURE})"
    more = f"Every contender, its version and how all this is measured: [benchmarks]({PAGE}). Yours: `make bench`."
    return ["## How fast", tables.target_table(found, main=True), more, picture]


def hit_ratios(traces: Mapping[str, Any]) -> list[str]:
    """Return the README's part about eviction."""
    more = f"A picture for each recorded trace, beside other caches and policies: [eviction]({eviction.PAGE})."
    return ["## What a full cache keeps", eviction.target_table(traces["traces"]), more]


def page(found: Results) -> str:
    """Return docs/benchmarks.md."""
    checks = next(iter(found.values()))["checks"]
    parts = [
        "<!-- Generated by `python -m bench.report`; do not edit. -->",
        "# Benchmarks",
        HOW + "\n".join(f"    - {check}" for check in checks),
        "## Targets",
        tables.target_table(found, main=False),
        f"![What nearcache takes, compared with others]({PICTURE.name})",
        *(part for group in rows.GROUPS if group in found for part in section(group, found)),
    ]
    return "\n\n".join(parts) + "\n"


def section(group: str, found: Results) -> list[str]:
    """Return the part of the page about one group."""
    document = found[group]
    count = len(document["runs"])
    made = (
        f"Measured {document['date']} at commit {document['commit']} with Python {document['python']} on "
        f"{document['cpu']} ({document['system']}): {count} run{'s' if count > 1 else ''}, "
        f"{document['minutes']:g} minutes."
    )
    parts = [f"## {rows.GROUPS[group].capitalize()} (`ROW={group}`)", made]
    for row in rows.of_group(group):
        runs = tables.runs_of(found, row)
        if runs:
            parts += [f"### {row.title}", amounts(row), tables.row_table(row, runs)]
        if runs and row.name == staleness.ROW and staleness.samples(found):
            parts.append(f"![{staleness.TITLE}]({STALENESS.name})")
    return parts


def amounts(row: rows.Row) -> str:
    """Say how much was measured."""
    if row.kind == "memory":
        return f"Growth of the resident memory with {row.calls:,} values, for each of them, in a fresh process."
    if row.kind == "start":
        return f"{row.rounds} fresh interpreters each; the interpreter's own start is not counted."
    if row.kind == "crowd":
        return (
            f"{row.rounds} expiries each of a key with a TTL of {BRIEF} s, whose load takes {LOAD * 1000:g} ms: "
            f"{READERS} threads or tasks in each of {PROCESSES} processes read it, with pauses of "
            f"{crowd.PAUSE * 1000:g} ms. {TOLD[row.measure]}"
        )
    if row.kind == "visible":
        return (
            f"{row.rounds} versions of one value, stored with pauses of {coherence.PAUSE * 1000:g} ms; another process "
            f"reads it, with pauses of {coherence.LOOK * 1e6:g} µs. The time is that from when a write was "
            "acknowledged until its version, or a newer one, was read first. The last old read is the latest moment "
            "after an acknowledgement at which a read began that got an older version."
        )
    if row.kind == "handoff":
        return (
            f"{row.rounds} times, another process having waited for {handoff.SETTLED * 1000:g} to "
            f"{handoff.WAITS * 1000:g} ms. The time is that from the holder's call that gives the lock back until the "
            "waiting call has returned."
        )
    if row.kind == "hits":
        return f"{row.rounds} blocks of {coherence.BLOCK:g} s each. {TOLD[row.measure]}"
    return f"{row.rounds} blocks of {row.calls:,} calls each."


def wanted(root: Path) -> dict[Path, str | None]:
    """Return what the generated files of a checkout must be."""
    folder = root / results.FOLDER.relative_to(ROOT)
    return outputs(results.load(folder), results.load_traces(folder))


def check(root: Path = ROOT) -> list[str]:
    """Return which generated files differ from what the results say, one line each."""
    found: list[str] = []
    for path, text in wanted(root).items():
        if current(root / path, path) != text:
            found.append(f"{path}:1: differs from what bench/results says; run `python -m bench.report`")
    return found


def current(file: Path, path: Path) -> str | None:
    """Return what is in a generated file now; of the README, what is between the markers."""
    text = file.read_text() if file.exists() else None
    if path != README or text is None:
        return text
    between = BLOCK.search(text)
    return between[0] if between else None


def write(root: Path = ROOT) -> None:
    """Write the generated files."""
    for path, text in wanted(root).items():
        file = root / path
        if path == README:
            file.write_text(replaced(file.read_text(), text or ""))
        elif text is None:
            file.unlink(missing_ok=True)
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)


def replaced(readme: str, new: str) -> str:
    """Return a README with something new between the markers."""
    return BLOCK.sub(lambda _: new, readme)


if __name__ == "__main__":
    write()
