"""The tables of docs/topologies.md, made of what the tests of topologies wrote down: `python -m tools.topologies`.

Run the tests first: `make test PYTEST_ARGS=tests/integration/test_topologies.py`.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tools.source import ROOT

FOLDER: Final = ROOT / ".cache" / "topologies"
PAGE: Final = ROOT / "docs" / "topologies.md"

ORDER: Final = ("memory", "embedded", "one server", "Sentinel", "Cluster", "Memcached", "Hazelcast")
"""The columns, by what they are called in a record."""

WORDS: Final[dict[bool | None, str]] = {True: "works", False: "fails", None: "–"}

Found = Mapping[str, Mapping[str, Any]]
"""What was found out about each topology."""


def records(folder: Path = FOLDER) -> dict[str, Any]:
    """Return what was written down, by topology."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return {record["topology"]: record for record in found}


def parts(found: Found) -> str:
    """Return the table of the parts of the engine that were tried."""
    names = dict.fromkeys(name for topology in ORDER for name in found[topology]["parts"])
    return _table(names, lambda name, topology: WORDS[found[topology]["parts"].get(name)])


def guarantees(found: Found) -> str:
    """Return the table of what can be relied on."""
    names = dict.fromkeys(name for topology in ORDER for name in found[topology]["guarantees"])
    return _table(names, lambda name, topology: found[topology]["guarantees"][name] or "holds")


def _table(names: Sequence[str] | Mapping[str, None], cell: Callable[[str, str], str]) -> str:
    head = f"| | {' | '.join(ORDER)} |\n|---{'|---' * len(ORDER)}|\n"
    return head + "".join(f"| {name} | {' | '.join(cell(name, topology) for topology in ORDER)} |\n" for name in names)


def filled(page: str, name: str, table: str) -> str:
    """Return a page with another table between its marks."""
    return re.sub(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", lambda _: table, page, flags=re.DOTALL)


def main() -> int:
    """Write the tables; 1 if a topology was not tried."""
    found = records()
    if missing := [topology for topology in ORDER if topology not in found]:
        print(f"not tried: {', '.join(missing)}")
        return 1
    page = filled(PAGE.read_text(), "parts", parts(found))
    PAGE.write_text(filled(page, "guarantees", guarantees(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
