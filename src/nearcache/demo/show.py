"""The show: the scenes in their order, then the table."""

import os
import threading
from pathlib import Path
from types import ModuleType

from rich.console import Console

from nearcache.demo import data, guide
from nearcache.demo.scenes import (
    cold_and_warm,
    failover,
    hanging,
    login,
    many_processes,
    metrics,
    outage,
    payments,
    race,
    restart,
    sessions,
    stampede,
    write_through,
)
from nearcache.demo.stage import Stage

SCENES: dict[str, ModuleType] = {
    "Cold and warm": cold_and_warm,
    "Four processes": many_processes,
    "Stampede": stampede,
    "Write-through": write_through,
    "The classic race": race,
    "A loader that hangs": hanging,
    "Restart": restart,
    "Engine killed": outage,
    "Primary killed": failover,
    "Payments": payments,
    "A guessed password": login,
    "Sessions": sessions,
    "Prometheus": metrics,
}
NEED_PROCESSES = frozenset(
    {
        "Four processes",
        "Write-through",
        "Restart",
        "Engine killed",
        "Primary killed",
        "Payments",
        "A guessed password",
        "Sessions",
    }
)
"""Scenes in which several processes share one engine."""


def run(once: bool) -> int:
    """Play all scenes; return 0 if everything is as promised, else 1."""
    stage = Stage(Console())
    _introduce(stage)
    with guide.cache:
        for name, scene in SCENES.items():
            _play(stage, name, scene)
        _conclude(stage)
        if not once and stage.console.is_terminal:
            _stay(stage)
    return 1 if stage.broken else 0


def _introduce(stage: Stage) -> None:
    rows = data.load(Path(os.environ["CITIES"]))
    engine = "an embedded Valkey server" if _has_processes() else "the memory of one process"
    stage.console.print(f"The source: {rows:,} cities in SQLite. The cache in front of it: {engine}.")


def _play(stage: Stage, name: str, scene: ModuleType) -> None:
    stage.begin(name, (scene.__doc__ or "").partition("\n\n")[0].strip().replace("\n", " "))
    if name in NEED_PROCESSES and not _has_processes():
        stage.report("left out: needs an engine that processes share", "")
        return
    try:
        scene.play(stage)
    except Exception as error:  # noqa: BLE001  # whatever it is, it was not promised, and the others go on
        stage.console.print_exception()
        stage.report("the scene ended with", type(error).__name__, holds=False)


def _has_processes() -> bool:
    return not os.environ["CACHE_URL"].startswith("memory:")


def _conclude(stage: Stage) -> None:
    stage.console.print(stage.table())
    if stage.broken:
        stage.console.print(f"[bold red]{len(stage.broken)} findings are not as promised.[/bold red]")
    else:
        stage.console.print("Everything is as promised.")


def _stay(stage: Stage) -> None:
    stage.console.print(f"The Prometheus page stays at {metrics.serve()} until you press Ctrl-C.")
    threading.Event().wait()
