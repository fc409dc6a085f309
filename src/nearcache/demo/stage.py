"""What the scenes are played on: progress bars, the numbers they report, and the table at the end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

T = TypeVar("T")

VERDICTS: dict[bool | None, str] = {None: "", True: "[green]yes[/green]", False: "[bold red]NO[/bold red]"}


@dataclass(frozen=True)
class Finding:
    """One measured number; `holds` tells whether it is as promised, None if nothing was promised."""

    scene: str
    what: str
    measured: str
    holds: bool | None


class Stage:
    """Shows how the demo gets on, and collects what it finds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.findings: list[Finding] = []
        self._scene = ""

    def begin(self, scene: str, about: str) -> None:
        """Begin a scene: its name, and what it shows."""
        self._scene = scene
        self.console.print(f"\n[bold]{scene}.[/bold] {about}")

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """Iterate over items behind a progress bar."""
        columns = TextColumn("  {task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console) as progress:
            yield from progress.track(items, total=total, description=what)

    def report(self, what: str, measured: object, holds: bool | None = None) -> None:
        """Note a number, and whether it is as promised."""
        self.findings.append(Finding(self._scene, what, str(measured), holds))

    def quote(self, line: str) -> None:
        """Show a line that somebody else wrote."""
        self.console.print(f"  | {line}", style="dim", markup=False, highlight=False)

    @property
    def broken(self) -> list[Finding]:
        """The findings that are not as promised."""
        return [finding for finding in self.findings if finding.holds is False]

    def table(self) -> Table:
        """Return all findings as one table, by scene."""
        table = Table("", "Measured", "Holds", box=box.SIMPLE)
        table.columns[1].justify = "right"
        scene = ""
        for finding in self.findings:
            if finding.scene != scene:
                scene = finding.scene
                table.add_row(f"[bold]{scene}[/bold]")
            table.add_row(f"  {finding.what}", finding.measured, VERDICTS[finding.holds])
        return table


def duration(seconds: float) -> str:
    """Write a duration so that people can compare it.

    >>> duration(0.0384), duration(0.0000014)
    ('38.4 ms', '1.4 µs')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def yes_or_no(fact: bool) -> str:
    """Write a fact for the table."""
    return "yes" if fact else "no"
