"""The check of types says what to mend, and covers every platform and Python."""

from tools.source import ROOT
from tools.types import PLATFORMS, VERSIONS, commands, incomplete


def problem(message: str, severity: str = "error") -> dict:
    place = {"start": {"line": 6, "character": 0}}
    return {"file": str(ROOT / "src" / "a.py"), "range": place, "message": message, "severity": severity}


def test_only_causes_are_shown_where_there_are_any() -> None:
    symbols = [{"diagnostics": [problem("Type of x is partially unknown"), problem("no annotation")]}]
    assert incomplete({"symbols": symbols}) == ["src/a.py:7: no annotation"]
    symbols[0]["diagnostics"].pop()
    assert incomplete({"symbols": symbols}) == ["src/a.py:7: Type of x is partially unknown"]


def test_a_complete_report_has_nothing_to_show() -> None:
    assert incomplete({"symbols": [{"diagnostics": [problem("no docstring", "warning")]}]}) == []


def test_both_checkers_run_for_every_platform_and_version() -> None:
    lines = [" ".join(command) for command in commands()]
    for version in VERSIONS:
        for platform, name in PLATFORMS.items():
            assert any(f"--platform {platform} --python-version {version}" in line for line in lines)
            assert any(f"--pythonplatform {name} --pythonversion {version}" in line for line in lines)
