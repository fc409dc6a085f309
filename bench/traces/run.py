"""`make bench ROW=traces`: every trace through every contender, checked, printed and kept.

Two contenders run at the same time where there are two processors: hit ratios are counted, not timed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import environments, results
from bench.parent import BenchError, surroundings
from bench.rows import US, Contender
from bench.traces import catalogue, reading, verdicts
from bench.traces.catalogue import FIXED, OPTIMUM, PUBLIC, Trace
from bench.traces.reading import Played
from tools.source import ROOT

Hits = list[float] | str
"""Percent at each capacity; or why there are none."""


def run(*, quick: bool = False) -> None:
    """Play all traces and keep the figures; `quick`: the smallest one, and keep nothing. Raises `BenchError`.

    Without the files it says loudly what is missing, and how to mend it.
    """
    chosen = (shortened(catalogue.find("gli")),) if quick else catalogue.TRACES
    if missing := reading.absent(chosen):
        print(lacking(missing), file=sys.stderr)
        return
    started = time.monotonic()
    document = played(chosen)
    document["checks"] = verdicts.insist(document["traces"])
    print(verdicts.text(document["traces"]))
    if not quick:
        results.save_traces(document, (time.monotonic() - started) / 60)


def lacking(missing: list[str]) -> str:
    """Say which files are not there."""
    return (
        f"bench: TRACES NOT PLAYED: {', '.join(missing)} not in {reading.folder()}; "
        "set NEARCACHE_TRACES to the folder that has them"
    )


def shortened(trace: Trace) -> Trace:
    """Return a trace with three capacities only, published ones among them."""
    return replace(trace, capacities=trace.capacities[:3])


def played(traces: tuple[Trace, ...]) -> dict[str, Any]:
    """Return the figures of traces, and the versions of contenders."""
    document: dict[str, Any] = {"versions": {}, "traces": {}}
    pythons = all_pythons(traces)
    with tempfile.TemporaryDirectory() as folder:
        for trace in traces:
            ready = reading.prepare(trace, Path(folder) / trace.name)
            answers = answered(trace, ready, pythons)
            versions = {name: found["versions"] for name, found in answers.items() if "versions" in found}
            document["versions"] |= versions
            document["traces"][trace.name] = figures(trace, ready, answers)
            print(verdicts.table(trace, document["traces"][trace.name]), flush=True)
            ready.path.unlink()
    return document


def all_pythons(traces: tuple[Trace, ...]) -> dict[str, Path | str]:
    """Return the Python of each environment that is needed, or why there is none."""
    found: dict[str, Path | str] = {}
    for name in sorted({contender.environment for trace in traces for contender in trace.contenders}):
        try:
            found[name] = environments.python_of(name)
        except environments.UnavailableError as error:
            found[name] = str(error)
    return found


def answered(trace: Trace, ready: Played, pythons: Mapping[str, Path | str]) -> dict[str, dict[str, Any]]:
    """Have all contenders play a trace; return by name what their workers say, or `{"error": …}`."""
    contenders = [*trace.contenders, *([catalogue.PUBLIC] if trace.name in catalogue.PUBLIC_TRACES else [])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = {one.name: pool.submit(answer, trace, ready, one, pythons[one.environment]) for one in contenders}
        return {name: future.result() for name, future in waiting.items()}


def capacities(trace: Trace, ready: Played) -> list[int]:
    """Return how much contenders may hold, in entries or bytes."""
    return [int(size * ready.weight) if trace.unit == "bytes" else int(size) for size in trace.capacities]


def answer(trace: Trace, ready: Played, contender: Contender, python: Path | str) -> dict[str, Any]:
    """Have one contender play a trace; return what its worker says. Raises `BenchError` if it has to be there."""
    found = {"error": python} if isinstance(python, str) else worked(python, trace, ready, contender)
    if "error" in found and contender.name in (US, PUBLIC.name, *FIXED, OPTIMUM):
        raise BenchError(f"{trace.name}, {contender.name}: {found['error']}")
    return found


def worked(python: Path, trace: Trace, ready: Played, contender: Contender) -> dict[str, Any]:
    """Run a worker; return what it says."""
    sizes = map(str, capacities(trace, ready))
    command = [str(python), "-m", "bench.traces.worker", str(ready.path), trace.name, contender.name, *sizes]
    done = subprocess.run(command, cwd=ROOT, env=surroundings(), capture_output=True, text=True, check=False)
    said: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"error": last_words(done.stderr)}
    return said


def last_words(errors: str) -> str:
    """Return the last line that a worker wrote."""
    return (errors.strip() or "the worker ended without a word").splitlines()[-1]


def figures(trace: Trace, ready: Played, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is kept of a trace."""
    kept = {"requests": ready.requests, "unique": ready.unique, "capacities": capacities(trace, ready)}
    if trace.unit == "bytes":
        return kept | {"weight": ready.weight, "hits": column(answers, 0), "byte hits": column(answers, 1)}
    return kept | {"hits": column(answers, 0)}


def column(answers: Mapping[str, Mapping[str, Any]], index: int) -> dict[str, Hits]:
    """Return the hits of requests (0) or bytes (1) by contender."""
    return {
        name: [round(pair[index], 2) for pair in found["hits"]] if "hits" in found else found["error"]
        for name, found in answers.items()
    }
