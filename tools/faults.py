"""The table of docs/faults.md, made of what the tests of faults wrote down: `python -m tools.faults`.

Run the tests first: `make test test-slow PYTEST_ARGS=tests/faults`. A row that no test has measured since goes.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tools.source import ROOT

FOLDER: Final = ROOT / ".cache" / "faults"
PAGE: Final = ROOT / "docs" / "faults.md"
BLOCK: Final = re.compile(r"(?<=<!-- faults -->\n).*?(?=<!-- /faults -->)", re.DOTALL)
HEAD: Final = """\
| what is broken | reads | errors | loads per key | wrong values | writes | errors | longest call | normal again after |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
"""


def rows(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return what was written down, by test and fault."""
    found: list[dict[str, Any]] = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(found, key=lambda row: (row["test"], row["fault"]))


def table(found: Iterable[Mapping[str, Any]]) -> str:
    """Return the table in Markdown."""
    return HEAD + "".join(map(_line, found))


def _line(row: Mapping[str, Any]) -> str:
    fault = f"[{row['fault']}](../{row['test']})"
    counts = [f"{row[name]:,}" for name in ("reads", "read_errors", "loads_per_key", "wrong", "writes", "write_errors")]
    return f"| {' | '.join([fault, *counts, _seconds(row['slowest']), _seconds(row['normal_after'])])} |\n"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def main() -> int:
    """Write the table, and say which rows are gone."""
    page, found = PAGE.read_text(), rows()
    named = {row["fault"] for row in found}
    for fault in re.findall(r"^\| \[(.+?)\]", page, re.MULTILINE):
        if fault not in named:
            print(f"no test has measured this any more: {fault}")
    PAGE.write_text(BLOCK.sub(lambda _: table(found), page))
    print(f"{len(found)} rows")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
