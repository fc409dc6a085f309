"""Numbers as people read them, and tables for the terminal and for Markdown: pure functions."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench import judge, rows

COPIES = {"shared": "hands out the stored dict itself", "shallow": "copies only the outer dict", "deep": "copies"}
MEASURED = {
    "wall": "time",
    "cpu": "client CPU",
    "bytes": "memory",
    "loads": "loads",
    "wait": "longest wait",
    "tail": "ratio",
    "tail_near": "p99.9 near an expiry",
    "tail_else": "p99.9 of the other reads",
    "commands": "commands",
    "p50": "median",
    "p99": "p99",
    "longest": "longest",
    "stale": "last old read",
    "rate": "hits",
}


def seconds(value: float) -> str:
    """Return a duration with three digits.

    >>> seconds(4.125e-7), seconds(1.5e-5), seconds(0.0125)
    ('412 ns', '15.0 µs', '12.5 ms')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{_digits(value / size)} {unit}"
    return f"{_digits(value / 1e-9)} ns"


def amount(value: float | None, measure: rows.Measure) -> str:
    """Return a duration, bytes, what was counted, or how often something was done in a second."""
    if value is None:
        return "–"
    if measure in ("loads", "commands"):
        return _digits(value)
    if measure == "rate":
        return rate(value)
    if measure == "tail":
        return f"{_digits(value)} ×"
    return f"{value:,.0f} bytes" if measure == "bytes" else seconds(value)


def rate(value: float | None) -> str:
    """Return the calls of a second.

    >>> rate(2.5e-5)
    '40,000/s'
    """
    return "–" if value is None else f"{1 / value:,.0f}/s"


def times(ratios: Sequence[float]) -> str:
    """Return a ratio, with the spread if there are several.

    >>> times([0.5]), times([0.48, 0.5, 0.61]), times([])
    ('0.50 ×', '0.50 × (0.48–0.61)', '–')
    """
    if not ratios:
        return "–"
    middle = f"{_digits(median(ratios))} ×"
    return middle if len(ratios) == 1 else f"{middle} ({_digits(min(ratios))}–{_digits(max(ratios))})"


def limit(target: rows.Target) -> str:
    """Return what a ratio must be.

    >>> limit(rows.Target("redis-py", 0.5)), limit(rows.Target("redis-py", 8, throughput=True))
    ('≤ 0.5 ×', '≥ 8 × the throughput')
    """
    return f"≥ {target.limit:g} × the throughput" if target.throughput else f"≤ {target.limit:g} ×"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def middle(row: rows.Row, runs: Sequence[judge.Run], name: str, measure: rows.Measure | None = None) -> float | None:
    """Return a contender's number: the middle one of the runs."""
    numbers = [judge.number(row, run.get(name, {}), measure) for run in runs]
    found = [number for number in numbers if number is not None]
    return median(found) if found else None


def ratios(row: rows.Row, runs: Sequence[judge.Run], name: str) -> list[float]:
    """Return how many times nearcache takes what a contender takes, for each run."""
    found = [judge.ratio(row, run, name) for run in runs]
    return [ratio for ratio in found if ratio is not None]


def columns(row: rows.Row) -> list[rows.Measure]:
    """Return what is shown of a row."""
    return list(row.kept)


def plain(row: rows.Row, runs: Sequence[judge.Run]) -> str:
    """Return a row as text for the terminal."""
    lines = [f"\n{row.title} (nearcache takes … of its {MEASURED[row.measure]})"]
    for contender in row.contenders:
        result = runs[-1][contender.name]
        if "error" in result:
            lines.append(f"  {contender.name:32} NOT MEASURED: {result['error']}")
            continue
        numbers = "".join(f"{amount(middle(row, runs, contender.name, one), one):>14}" for one in columns(row))
        ratio = "" if contender.name == rows.US else times(ratios(row, runs, contender.name))
        lines.append(f"  {contender.name:32}{numbers}{ratio:>14}  {remarks(row, contender, result)}")
    return "\n".join(lines)


def verdicts(chosen: Sequence[rows.Row], runs: Sequence[Mapping[str, judge.Run]]) -> str:
    """Return what became of the targets, as text for the terminal."""
    lines = ["\ntargets"]
    for row in chosen:
        for target in row.targets:
            found = judge.judge(row, [run[row.name] for run in runs], target)
            lines.append(f"  {row.name:24}{found.against:26}{times(found.ratios):24}{limit(target):26}{found.verdict}")
    return "\n".join(lines) if len(lines) > 1 else ""


def remarks(row: rows.Row, contender: rows.Contender, result: Mapping[str, Any]) -> str:
    """Return versions, and what makes a contender's work another work."""
    packages = [f"{name} {number}" for name, number in result["versions"].items() if name != "python"]
    packages = packages or [f"Python {result['versions']['python']}"]
    copies = COPIES.get(result["copies"] or "") if row.group.startswith("near") else None
    return "; ".join([", ".join(packages), *filter(None, (contender.note, copies))])


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; columns after the first are aligned to the right if they hold numbers.

    >>> print(markdown(["a", "b"], [["x", "1"]]))
    | a | b |
    |---|---|
    | x | 1 |
    """
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(
        "|" + "|".join(cells) + "|" if cells[0] == "---" else f"| {' | '.join(cells)} |" for cells in lines
    )


def row_table(row: rows.Row, runs: Sequence[judge.Run]) -> str:
    """Return all contenders of a row as a table."""
    shown = columns(row)
    head = ["", *(MEASURED[one] for one in shown), "nearcache takes", "versions and remarks"]
    body: list[list[str]] = []
    for contender in row.contenders:
        result = runs[-1][contender.name]
        if "error" in result:
            body.append([contender.name, *["–"] * len(shown), "–", f"**not measured**: {cell(result['error'])}"])
            continue
        numbers = [amount(middle(row, runs, contender.name, one), one) for one in shown]
        ratio = "" if contender.name == rows.US else times(ratios(row, runs, contender.name))
        body.append([contender.name, *numbers, ratio, remarks(row, contender, result)])
    return markdown(head, body)


def target_table(results: Mapping[str, Mapping[str, Any]], *, main: bool) -> str:
    """Return one line for each target of the rows that were measured; only `main` rows for the README."""
    body: list[list[str]] = []
    for row in rows.ROWS:
        runs = runs_of(results, row)
        if runs and (row.main or not main):
            body += [target_line(row, runs, target) for target in row.targets]
    return markdown(["", "nearcache", "compared with", "", "ratio", "target", ""], body)


def target_line(row: rows.Row, runs: Sequence[judge.Run], target: rows.Target) -> list[str]:
    """Return a target, the numbers behind it and what became of it."""
    found = judge.judge(row, runs, target)
    name = judge.opponent(row, runs[-1], target) or found.against
    against = f"{found.against} (best with a TTL)" if target.against == rows.BEST_WITH_TTL else found.against
    pair = [middle(row, runs, rows.US), middle(row, runs, name)]
    shown = [rate(one) if target.throughput else amount(one, row.measure) for one in pair]
    title = f"{row.title} ({MEASURED[row.measure]})" if row.measure == "cpu" else row.title
    return [title, shown[0], against, shown[1], times(found.ratios), limit(target), mark(found.verdict)]


def mark(verdict: str) -> str:
    """Return a verdict so that a missed target cannot be overlooked."""
    return verdict if verdict.startswith("met") else f"**{verdict}**"


def runs_of(results: Mapping[str, Mapping[str, Any]], row: rows.Row) -> list[judge.Run]:
    """Return the runs in which a row was measured."""
    document = results.get(row.group)
    return [run[row.name] for run in document["runs"] if row.name in run] if document else []


def cell(text: str) -> str:
    """Return text that does not end its cell.

    >>> cell("a|b")
    'a¦b'
    """
    return " ".join(text.replace("|", "¦").split())
