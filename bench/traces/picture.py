"""The picture of one trace, as SVG: hits against capacity, a line for each contender, the optimum on top."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any
from xml.sax.saxutils import escape

from bench.rows import US
from bench.traces import verdicts
from bench.traces.catalogue import OPTIMUM, PUBLIC, Trace

WIDTH, HEIGHT = 880, 560
LEFT, RIGHT, TOP, BOTTOM = 58, 646, 66, 506
LEGEND = 668
STEPS = (1, 2, 5, 10, 20)
"""Points between two lines of the grid."""
LINES = 9

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-size: 15px; font-weight: 600; fill: #1f2328 } .us { font-weight: 700; fill: #1f2328 }
.grid { stroke: #d8dee4 } path { fill: none; stroke-width: 1.6; stroke-linejoin: round }
.area { fill: #8c959f; fill-opacity: 0.14; stroke: none }
.c0 { color: #0550ae } .c1 { color: #8c959f } .c2 { color: #bc4c00 } .c3 { color: #8250df } .c4 { color: #0a7c86 }
.c5 { color: #bf3989 } .c6 { color: #7d6a00 } .c7 { color: #1a7f37 } .c8 { color: #57606a } .c9 { color: #9a3b3b }
.c10 { color: #a0762b } .c11 { color: #3b7dd8 } .c12 { color: #5e8a00 } .c13 { color: #c2255c }
.c14 { color: #1f2328 }
.line { stroke: currentColor } .dot { fill: currentColor; stroke: none }
.c0 .line { stroke-width: 4 } .c14 .line { stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #9da7b1 } .title, .us { fill: #e6edf3 } .grid { stroke: #30363d }
  .c0 { color: #58a6ff } .c1 { color: #8b949e } .c2 { color: #f0883e } .c3 { color: #bc8cff } .c4 { color: #39c5cf }
  .c5 { color: #f778ba } .c6 { color: #d4b72a } .c7 { color: #56d364 } .c8 { color: #b1bac4 } .c9 { color: #e5827f }
  .c10 { color: #d9a651 } .c11 { color: #79b8ff } .c12 { color: #a3c940 } .c13 { color: #ff7b9c }
  .c14 { color: #e6edf3 }
}
"""


@dataclass(frozen=True)
class Look:
    """How a line is drawn: its colour's class, its dashes and the shape at its points."""

    colour: int
    dashes: str = ""
    shape: str = "circle"


LOOKS = {
    US: Look(0),
    "LRU": Look(1, shape="square"),
    "2Q": Look(2, shape="up"),
    "ARC": Look(3, shape="diamond"),
    "LIRS": Look(4, shape="down"),
    "S3-FIFO": Look(5, shape="square"),
    "SIEVE": Look(6, shape="circle"),
    "W-TinyLFU": Look(7, shape="up"),
    "GDSF": Look(11, shape="down"),
    "cachetools LRU": Look(8, "2 4", "cross"),
    "cachetools LFU": Look(9, "6 4", "cross"),
    "cachebox": Look(10, "6 4", "plus"),
    "moka-py": Look(13, "6 4", "diamond"),
    "theine": Look(12, "6 4", "down"),
    OPTIMUM: Look(14, "1 3", "none"),
}
"""Policies are drawn through, peers in dashes."""

Place = Callable[[float], float]


@dataclass(frozen=True)
class Frame:
    """Where a capacity and a percentage are in the picture."""

    x: Place
    y: Place
    low: int
    high: int
    step: int


def svg(trace: Trace, figures: Mapping[str, Any]) -> str:
    """Return the picture of a trace."""
    hits = {name: values for name, values in verdicts.measured(figures).items() if name != PUBLIC.name}
    frame = framed(figures["capacities"], [value for values in hits.values() for value in values])
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>Hit ratio against capacity: {escape(trace.title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="16" y="26">{escape(trace.title)}</text>',
        f'<text x="16" y="46">{caption(trace, figures)}</text>',
        *grid(trace, figures["capacities"], frame),
        area(figures["capacities"], hits[OPTIMUM], frame),
        *(line(name, figures["capacities"], hits[name], frame) for name in back_to_front(hits)),
        *legend(hits),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def caption(trace: Trace, figures: Mapping[str, Any]) -> str:
    """Return the line below the title."""
    unit = "bytes that fit" if trace.unit == "bytes" else "entries that fit"
    return f"percent of {figures['requests']:,} requests that are hits, by {unit} (of {figures['unique']:,} objects)"


def framed(capacities: Sequence[int], values: Sequence[float]) -> Frame:
    """Return the frame: capacities by their logarithm, percentages between two lines of the grid."""
    step = next((one for one in STEPS if (max(values) - min(values)) / one <= LINES), STEPS[-1])
    low, high = step * math.floor(min(values) / step), min(100, step * math.ceil(max(values) / step))
    first, last = math.log(capacities[0]), math.log(capacities[-1])

    def x(capacity: float) -> float:
        return round(LEFT + 12 + (math.log(capacity) - first) / (last - first) * (RIGHT - LEFT - 24), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)

    return Frame(x, y, low, high, step)


def grid(trace: Trace, capacities: Sequence[int], frame: Frame) -> list[str]:
    """Return the scales."""
    lines: list[str] = []
    for value in range(frame.low, frame.high + 1, frame.step):
        y = frame.y(value)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value} %</text>')
    for share, capacity in zip(trace.capacities, capacities, strict=True):
        x, label = frame.x(capacity), f"{100 * share:g} %" if trace.unit == "bytes" else f"{capacity:,}"
        lines.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}"/>')
        lines.append(f'<text x="{x}" y="{BOTTOM + 20}" text-anchor="middle">{label}</text>')
    words = "share of the bytes of all objects" if trace.unit == "bytes" else "entries"
    return [*lines, f'<text x="{(LEFT + RIGHT) / 2:g}" y="{BOTTOM + 42}" text-anchor="middle">{words}</text>']


def area(capacities: Sequence[int], values: Sequence[float], frame: Frame) -> str:
    """Return what lies above the optimum, where nobody can be."""
    points = " L".join(f"{frame.x(one)} {frame.y(value)}" for one, value in zip(capacities, values, strict=True))
    left, right = frame.x(capacities[0]), frame.x(capacities[-1])
    return f'<path class="area" d="M{left} {TOP} L{points} L{right} {TOP} Z"/>'


def back_to_front(hits: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the contenders so that nearcache is drawn last, over all others."""
    return sorted(hits, key=lambda name: (name == US, name == OPTIMUM))


def line(name: str, capacities: Sequence[int], values: Sequence[float], frame: Frame) -> str:
    """Return the line of a contender."""
    look = LOOKS[name]
    points = [(frame.x(one), frame.y(value)) for one, value in zip(capacities, values, strict=True)]
    drawn = " L".join(f"{x} {y}" for x, y in points)
    marks = "".join(mark(look.shape, x, y, 5 if name == US else 3.5) for x, y in points)
    return f'<g class="c{look.colour}"><title>{escape(name)}</title>{stroke(look, "M" + drawn)}{marks}</g>'


def stroke(look: Look, path: str) -> str:
    """Return a path in the look's dashes."""
    dashes = f' stroke-dasharray="{look.dashes}"' if look.dashes else ""
    return f'<path class="line"{dashes} d="{path}"/>'


def mark(shape: str, x: float, y: float, r: float) -> str:
    """Return the mark of a point."""
    corners = {
        "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "diamond": [(0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)],
        "up": [(0, -r - 1), (r + 1, r), (-r - 1, r)],
        "down": [(0, r + 1), (r + 1, -r), (-r - 1, -r)],
    }
    strokes = {"cross": [(-r, -r, r, r), (-r, r, r, -r)], "plus": [(-r, 0, r, 0), (0, -r, 0, r)]}
    if shape in corners:
        path = " L".join(f"{x + dx:g} {y + dy:g}" for dx, dy in corners[shape])
        return f'<path class="dot" d="M{path} Z"/>'
    if shape in strokes:
        path = " ".join(f"M{x + a:g} {y + b:g} L{x + c:g} {y + d:g}" for a, b, c, d in strokes[shape])
        return f'<path class="line" d="{path}"/>'
    return f'<circle class="dot" cx="{x}" cy="{y}" r="{r}"/>' if shape == "circle" else ""


def legend(hits: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the names beside their lines, the best on average first."""
    lines = [f'<text x="{LEGEND}" y="{TOP + 4}">mean of the points</text>']
    for index, name in enumerate(sorted(hits, key=lambda name: -fmean(hits[name]))):
        look, y = LOOKS[name], TOP + 28 + 27 * index
        shown = mark(look.shape, LEGEND + 17, y, 5 if name == US else 3.5)
        sample = stroke(look, f"M{LEGEND} {y} L{LEGEND + 34} {y}") + shown
        kind = ' class="us"' if name == US else ""
        lines.append(f'<g class="c{look.colour}">{sample}</g>')
        lines.append(f'<text{kind} x="{LEGEND + 42}" y="{y + 4}">{escape(name)}</text>')
        lines.append(f'<text{kind} x="{WIDTH - 16}" y="{y + 4}" text-anchor="end">{fmean(hits[name]):.1f}</text>')
    return lines
