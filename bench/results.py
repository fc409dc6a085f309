"""The files `bench/results/<group>.json`: where and when a group was measured, and every sample.

    {"group": "near", "commit": …, "date": …, "cpu": …, "python": …, "checks": […], "minutes": …,
     "runs": [{"near-int": {"nearcache": {"versions": {…}, "copies": null, "wall": "412.5 398.1 …"}, …}, …}, …]}

`traces.json` holds hit ratios instead: see `bench.traces`. Samples are nanoseconds for each call (or bytes for each
value, or what was counted) with four digits, in one text, so that a block is a word and not a line.
"""

import json
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.source import ROOT

FOLDER = ROOT / "bench" / "results"
TIMES = ("wall", "cpu", "wait", "tail_near", "tail_else", "p50", "p99", "longest", "stale", "visible", "rate")
MEASURES = dict.fromkeys(TIMES, 1e9) | dict.fromkeys(("bytes", "loads", "tail", "commands"), 1.0)
"""What is kept of each call, and how many of its unit are one in Python."""
TRACES = "traces"
"""The group that counts hits instead of timing calls."""
NUMBERS = re.compile(r"\[[-\d.,\s]*\]")
"""A list of numbers, which is written in one line."""


def save(group: str, runs: list[dict[str, Any]], checks: list[str], minutes: float) -> Path:
    """Write the results of a group."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{group}.json"
    document = place() | {"checks": checks, "minutes": round(minutes, 1), "runs": [_packed_run(run) for run in runs]}
    path.write_text(json.dumps({"group": group} | document, indent=1, ensure_ascii=False) + "\n")
    return path


def save_traces(document: Mapping[str, Any], minutes: float) -> None:
    """Write the hit ratios of traces: as the other groups say where and when, but with neither runs nor samples."""
    FOLDER.mkdir(exist_ok=True)
    whole = {"group": TRACES, **place(), "minutes": round(minutes, 1), **document}
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    (FOLDER / f"{TRACES}.json").write_text(NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")


def load_traces(folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return the hit ratios of traces, if there are any."""
    path = folder / f"{TRACES}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def load(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Return the results of all groups of rows that have some, samples as numbers."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(set(folder.glob("*.json")) - {folder / f"{TRACES}.json"}):
        document = json.loads(path.read_text())
        document["runs"] = [_unpacked_run(run) for run in document["runs"]]
        found[document["group"]] = document
    return found


def pack(samples: list[float], unit: float) -> str:
    """Return samples as one text.

    >>> pack([4.125e-7, 1.0], 1e9)
    '412.5 1e+09'
    """
    return " ".join(f"{sample * unit:.4g}" for sample in samples)


def unpack(text: str, unit: float) -> list[float]:
    """Return the samples in a text.

    >>> unpack("412.5 1e+09", 1e9)
    [4.125e-07, 1.0]
    """
    return [float(word) / unit for word in text.split()]


def place() -> dict[str, str]:
    """Return where and when this is."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD")
        + ("-changed" if _git("status", "--porcelain", "src") else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def cpu(path: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name, and how many of them this machine has."""
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor() or "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _packed_run(run: Mapping[str, Any]) -> dict[str, Any]:
    return {row: {name: _packed(result) for name, result in results.items()} for row, results in run.items()}


def _packed(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: pack(value, MEASURES[key]) if key in MEASURES else value for key, value in result.items()}


def _unpacked_run(run: Mapping[str, Any]) -> dict[str, Any]:
    return {row: {name: _unpacked(result) for name, result in results.items()} for row, results in run.items()}


def _unpacked(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: unpack(value, MEASURES[key]) if key in MEASURES else value for key, value in result.items()}
