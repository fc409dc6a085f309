"""The page about engines shows the numbers of the committed results."""

import re
from typing import Any

from bench import results, rows, tables
from tools.source import ROOT

PAGE = ROOT / "docs" / "choosing-an-engine.md"

SHOWN = {
    "Redis or Valkey": ("remote-get-tcp", "remote-many", "remote-set", "remote-tasks-asyncio"),
    "Memcached": ("memcached-get", "memcached-many", "memcached-set", "memcached-tasks"),
    "Hazelcast": ("hazelcast-get", "hazelcast-many", "hazelcast-set", "hazelcast-tasks"),
}
"""The rows of each engine: a hit, a hundred at once, a write, and hits by tasks of asyncio."""


def cell(found: dict[str, Any], name: str) -> str:
    """Return what a row found: our time, and how many times the first client's that is."""
    row = next(row for row in rows.ROWS if row.name == name)
    runs = tables.runs_of(found, row)
    ours = tables.amount(tables.middle(row, runs, rows.US, "cpu"), "cpu")
    return f"{ours}, {tables.times(tables.ratios(row, runs, row.contenders[1].name)).partition(' (')[0]}"


def test_the_numbers_of_the_page_are_those_of_the_results() -> None:
    found = results.load()
    head = "| | a hit | `get_many` of 100 | `set` | a hit, 100 tasks in asyncio |\n|---|--:|--:|--:|--:|\n"
    lines = [f"| {engine} | {' | '.join(cell(found, name) for name in names)} |\n" for engine, names in SHOWN.items()]
    shown = re.search(r"<!-- numbers -->\n(.*?)<!-- /numbers -->", PAGE.read_text(), re.DOTALL)
    assert shown
    assert shown[1] == head + "".join(lines)
