"""The Python examples of README.md and docs/: what stands between ```python fences.

Examples of one file share their names, as they do in a reader's head. One that cannot run on its own (it needs a
server, say) carries the comment `<!-- not run: why -->` on the line before its fence.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.source import ROOT

FENCE = re.compile(
    r"(?P<skip><!-- not run: (?P<reason>.+?) -->\n\s*)?^(?P<indent> *)```python\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """One example: its code, the line it begins at, and why it is not run (None: it is)."""

    code: str
    line: int
    skipped: str | None


def examples(text: str) -> Iterator[Example]:
    """Walk the examples of a text in Markdown."""
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(keepends=True))
        yield Example(code, text.count("\n", 0, match.start("code")) + 1, match["reason"])


def pages(root: Path = ROOT) -> list[Path]:
    """Return README.md and the pages of docs/ that have examples."""
    candidates = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in candidates if path.exists() and any(examples(path.read_text()))]


def program(path: Path) -> str:
    """Return the examples of a page as one program with the page's line numbers."""
    lines: list[str] = []
    for example in examples(path.read_text()):
        if example.skipped is None:
            lines += [""] * (example.line - 1 - len(lines)) + example.code.splitlines()
    return "\n".join(lines) + "\n"
