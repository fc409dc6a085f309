"""The picture of how long a write takes to be seen, as SVG: a strip for each contender, over a scale of decades."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from bench import chart, rows, tables
from bench.crowd import slowest

ROW = "coherence-visible"
TITLE = "From a write to its being seen in another process"
LEGEND = "share of the writes by the time from the acknowledgement until another process, which keeps it near, reads it"

LEFT, RIGHT = 160, 200
TOP, STEP, TALLEST = 66, 58, 44
BARS = 10
"""Bars in each decade."""

SHORTEST = 1e-5
"""Seconds: what took less, or was seen before its acknowledgement, stands in the first bar."""

STYLE = f"{chart.STYLE.rstrip()}\n.peer {{ fill: #8c959f }}\n"


def samples(results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the times of all runs, by contender; nothing of those that could not be measured."""
    row = rows.find(ROW)
    runs = tables.runs_of(results, row)
    found = {one.name: [took for run in runs for took in run[one.name].get("visible", ())] for one in row.contenders}
    return {name: took for name, took in found.items() if took}


def svg(shown: Mapping[str, Sequence[float]]) -> str:
    """Return the picture."""
    decades = span([took for every in shown.values() for took in every])
    bottom = TOP + STEP * len(shown)
    size = f'viewBox="0 0 {chart.WIDTH} {bottom + 34}" width="{chart.WIDTH}" height="{bottom + 34}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{TITLE}</title><style>{STYLE}</style>",
        f'<text class="title" x="16" y="26">{TITLE}</text>',
        f'<text x="16" y="46">{LEGEND}</text>',
        *grid(decades, bottom),
    ]
    for index, (name, took) in enumerate(shown.items()):
        parts += strip(name, took, decades, TOP + STEP * (index + 1))
    return "\n".join([*parts, "</svg>"]) + "\n"


def span(took: Sequence[float]) -> range:
    """Return the decades that hold all of these times, as powers of ten of a second.

    >>> span([0.0, 0.00025, 0.003])
    range(-5, -2)
    """
    first = math.floor(math.log10(max(SHORTEST, min(took))))
    return range(first, max(first + 1, math.floor(math.log10(max(*took, SHORTEST))) + 1))


def shares(took: Sequence[float], decades: range) -> list[float]:
    """Return which share of these times belongs to each bar.

    >>> [round(share, 2) for share in shares([0.0, 2e-5, 2e-5, 5e-5], range(-5, -4))]
    [0.25, 0.0, 0.0, 0.5, 0.0, 0.0, 0.25, 0.0, 0.0, 0.0]
    """
    counts = [0] * (BARS * len(decades))
    for one in took:
        place = math.floor(BARS * (math.log10(max(one, SHORTEST)) - decades.start))
        counts[min(max(0, place), len(counts) - 1)] += 1
    return [count / len(took) for count in counts]


def grid(decades: range, bottom: int) -> list[str]:
    """Return the scale."""
    lines: list[str] = []
    for power in [*decades, decades.stop]:
        x = place(power, decades)
        lines.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{bottom + 6}"/>')
        lines.append(f'<text x="{x}" y="{bottom + 24}" text-anchor="middle">{label(power, SHORTEST)}</text>')
    return lines


def label(power: int, shortest: float = 0.0) -> str:
    """Return a power of ten of a second as people read it; the shortest time stands for all below.

    >>> label(-6), label(-5, 1e-5), label(-3), label(0)
    ('1 µs', '≤ 10 µs', '1 ms', '1 s')
    """
    unit, below = {0: ("s", 0), 1: ("ms", -3)}.get(-(power // 3), ("µs", -6))
    return f"{'≤ ' if 10**power <= shortest else ''}{10 ** (power - below)} {unit}"


def place(power: float, decades: range) -> float:
    """Return where a power of ten of a second is."""
    return round(LEFT + (power - decades.start) / len(decades) * (chart.WIDTH - LEFT - RIGHT), 1)


def strip(name: str, took: Sequence[float], decades: range, floor: int) -> list[str]:
    """Return the bars of one contender, with its name and numbers."""
    found, width = shares(took, decades), place(decades.start + 1 / BARS, decades) - LEFT
    kind = "less" if name.startswith(rows.US) else "peer"
    told = f"median {tables.seconds(median(took))}, p99 {tables.seconds(slowest(took, 0.99))}"
    lines = [
        f'<text x="16" y="{floor - 4}">{escape(name)}</text>',
        f'<text x="{chart.WIDTH - 16}" y="{floor - 4}" text-anchor="end">{told}</text>',
        f'<line class="grid" x1="{LEFT}" x2="{chart.WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>',
    ]
    for index, share in enumerate(found):
        if share:
            x, height = place(decades.start + index / BARS, decades), max(0.5, round(TALLEST * share / max(found), 1))
            lines.append(f'<rect class="{kind}" x="{x}" y="{floor - height:g}" width="{width:g}" height="{height}"/>')
    return lines
