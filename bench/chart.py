"""The picture of the targets, as SVG: one bar each, left of the line where nearcache takes less."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from bench import judge, rows, tables

WIDTH = 880
LEFT, RIGHT = 420, 90
TOP, STEP, BAR = 64, 30, 14
LEGEND = "left of 1 ×: less than the other; the upright mark is the target; throughputs are drawn as times"
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-size: 15px; font-weight: 600; fill: #1f2328 } .small { font-size: 10px }
.less { fill: #1a7f5a } .more { fill: #c4681c }
.grid { stroke: #d0d7de } .one { stroke: #57606a } .target { stroke: #1f2328 }
@media (prefers-color-scheme: dark) {
  text { fill: #9da7b1 } .title { fill: #e6edf3 }
  .less { fill: #3fb68b } .more { fill: #e08b45 }
  .grid { stroke: #30363d } .one { stroke: #9da7b1 } .target { stroke: #e6edf3 }
}
"""


@dataclass(frozen=True)
class Bar:
    """One target: what nearcache takes, as a multiple of the other, and what it may take at most."""

    label: str
    against: str
    value: float
    limit: float


def bars(results: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    """Return a bar for each target of the main rows that were measured; a throughput becomes a time."""
    found: list[Bar] = []
    for row in rows.ROWS:
        runs = tables.runs_of(results, row)
        for target in row.targets if runs and row.main else ():
            verdict = judge.judge(row, runs, target)
            if verdict.ratios:
                value = median(verdict.ratios)
                pair = (1 / value, 1 / target.limit) if target.throughput else (value, target.limit)
                found.append(Bar(row.title, verdict.against, *pair))
    return found


def svg(shown: Sequence[Bar]) -> str:
    """Return the picture."""
    height = TOP + STEP * len(shown) + 34
    lowest, highest = span(shown)

    def place(value: float) -> float:
        share = math.log(value / lowest) / math.log(highest / lowest)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>What nearcache takes, compared with others</title><style>{STYLE}</style>",
        '<text class="title" x="16" y="26">What nearcache takes, as a multiple of the other</text>',
        f'<text x="16" y="46">{LEGEND}</text>',
        *grid([tick for tick in TICKS if lowest <= tick <= highest], place, height),
    ]
    for index, bar in enumerate(shown):
        parts += drawn(bar, TOP + STEP * index, place)
    return "\n".join([*parts, "</svg>"]) + "\n"


def span(shown: Sequence[Bar]) -> tuple[float, float]:
    """Return the ends of the scale: ticks with all values and targets between them."""
    values = [1.0, *(value for bar in shown for value in (bar.value, bar.limit))]
    lowest = max((tick for tick in TICKS if tick <= min(values)), default=min(values))
    highest = min((tick for tick in TICKS if tick >= max(values) and tick > 1), default=max(values))
    return min(lowest, 0.5), highest


def grid(ticks: Sequence[float], place: Any, height: int) -> list[str]:
    """Return the scale."""
    lines: list[str] = []
    for tick in ticks:
        x, kind = place(tick), "one" if tick == 1 else "grid"
        lines.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{height - 28}"/>')
        lines.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle">{tick:g} ×</text>')
    return lines


def drawn(bar: Bar, y: int, place: Any) -> list[str]:
    """Return one bar with its words, its number and the target."""
    start, end, target = place(1), place(bar.value), place(bar.limit)
    left, width = min(start, end), max(1.0, round(abs(end - start), 1))
    kind = "less" if bar.value < 1 else "more"
    return [
        f'<text x="16" y="{y + 6}">{escape(bar.label.replace("`", ""))}</text>',
        f'<text class="small" x="16" y="{y + 18}">compared with {escape(bar.against)}</text>',
        f'<rect class="{kind}" x="{left}" y="{y}" width="{width}" height="{BAR}" rx="2"/>',
        f'<line class="target" stroke-width="2" x1="{target}" x2="{target}" y1="{y - 3}" y2="{y + BAR + 3}"/>',
        f'<text x="{WIDTH - 16}" y="{y + 11}" text-anchor="end">{tables.times([bar.value])}</text>',
    ]
