"""The tables of topologies, and the page that shows them."""

import re
from typing import Any

from nearcache.cli.doctor import GUARANTEES
from tools.topologies import ORDER, PAGE, filled, guarantees, parts

FOUND: dict[str, Any] = {
    name: {"parts": {"values": True, "scan": None}, "guarantees": {"It rains": "", "It pours": "on Mondays"}}
    for name in ORDER
}


def test_each_topology_is_a_column() -> None:
    rows = parts(FOUND).splitlines()
    assert rows[0] == f"| | {' | '.join(ORDER)} |"
    assert rows[2:] == [f"| values{' | works' * len(ORDER)} |", f"| scan{' | –' * len(ORDER)} |"]
    assert guarantees(FOUND).splitlines()[2:] == [
        f"| It rains{' | holds' * len(ORDER)} |",
        f"| It pours{' | on Mondays' * len(ORDER)} |",
    ]


def test_a_page_gets_its_tables() -> None:
    page = "a\n<!-- parts -->\nold\n<!-- /parts -->\nb\n"
    assert filled(page, "parts", "new\n") == "a\n<!-- parts -->\nnew\n<!-- /parts -->\nb\n"


def test_the_page_shows_every_guarantee_and_nothing_that_fails() -> None:
    page = PAGE.read_text()
    for name in ("values", "leases", "tags", "messages", *GUARANTEES):
        assert re.search(rf"^\| {re.escape(name)}(?: \| [^|]+){{{len(ORDER)}}} \|$", page, re.MULTILINE), name
    assert "| fails" not in page
