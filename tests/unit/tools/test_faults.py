"""The table of faults, and the page that shows it."""

import re
from typing import Any

from tools.faults import BLOCK, HEAD, PAGE, table
from tools.source import ROOT

ROW: dict[str, Any] = {
    "fault": "the engine sings",
    "reads": 1200,
    "read_errors": 0,
    "loads_per_key": 2,
    "wrong": 0,
    "writes": 3,
    "write_errors": 1,
    "slowest": 0.1234,
    "normal_after": None,
    "test": "tests/faults/test_songs.py",
}


def test_a_row_shows_what_was_counted() -> None:
    line = "| [the engine sings](../tests/faults/test_songs.py) | 1,200 | 0 | 2 | 0 | 3 | 1 | 0.12 s |  |\n"
    assert table([ROW]) == HEAD + line


def test_the_page_has_rows_of_tests_that_are_there_and_no_wrong_value() -> None:
    found = BLOCK.search(PAGE.read_text())
    assert found
    rows = found[0].removeprefix(HEAD).splitlines()
    assert len(rows) >= 8
    for row in rows:
        name, test, wrong = re.findall(r"^\| \[(.+)\]\(\.\./(.+)\) \|(?: [^|]+\|){3} (\d+) \|", row)[0]
        assert (ROOT / test).exists(), name
        assert wrong == "0", name
