"""`nearcache doctor` prints what it finds for people and for programs, and exits with 1 if there is something to do."""

import json
from typing import Any

import pytest

from nearcache import Cache
from nearcache._checkup import Check
from nearcache.cli import doctor
from nearcache.cli import main as cli
from tests.servers import CHECKOUT, free_port

FINE = [Check("connection", True, "near"), Check("values", True, "stored"), Check("stream", None, "no right")]
UNWISE = Check("memory", True, "no limit", "set one")
BROKEN = Check("messages", False, "nobody may publish")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch) -> None:
    monkeypatch.delenv("CACHE_URL", raising=False)


def given(monkeypatch, checks: list[Check]) -> None:
    """Have an examination that finds this."""
    monkeypatch.setattr(doctor, "examine", lambda cache: checks)


@pytest.mark.parametrize(("more", "code"), [([], 0), ([UNWISE], 1), ([BROKEN], 1), ([UNWISE, BROKEN], 1)])
def test_the_exit_code_says_whether_there_is_something_to_do(monkeypatch, capsys, more, code) -> None:
    given(monkeypatch, [*FINE, *more])
    assert cli.main(["doctor", "--url", "memory://"]) == code
    assert capsys.readouterr().out.endswith(f"things to mend: {len(more) or 'none'}\n")
    assert cli.main(["doctor", "--json", "--url", "memory://"]) == code
    assert json.loads(capsys.readouterr().out)["findings"] == len(more)


def test_people_get_a_table(monkeypatch) -> None:
    rows = doctor.table(Cache("memory://", namespace="n"), [*FINE, UNWISE, BROKEN]).splitlines()
    assert rows[:8] == [
        "Cache('memory://', namespace='n')",
        "",
        "connection   works   near",
        "values       works   stored",
        "stream       -       no right",
        "memory       works   no limit",
        "                     => set one",
        "messages     fails   nobody may publish",
    ]
    assert rows[9].startswith("what you can rely on")
    assert "One load, however many ask           limited: who waits for another process looks" in rows[10]
    assert "You read what you wrote              holds" in rows


def test_programs_get_the_same(monkeypatch, capsys) -> None:
    given(monkeypatch, [*FINE, BROKEN])
    cli.main(["doctor", "--json", "--url", "memory://"])
    found = json.loads(capsys.readouterr().out)
    assert found["cache"] == "Cache('memory://', namespace='app')"
    assert found["checks"][-1] == {"name": "messages", "works": False, "found": BROKEN.found, "advice": ""}
    held = {each["title"]: each["holds"] for each in found["guarantees"]}
    assert [title for title, holds in held.items() if not holds] == ["One load, however many ask"]
    assert all(bool(each["lack"]) != each["holds"] for each in found["guarantees"])


def test_guarantees_are_sections_of_the_page_and_parts_are_checks() -> None:
    page = (CHECKOUT / "docs" / "guarantees.md").read_text()
    assert all(f"\n## {title}\n" in page for title in doctor.GUARANTEES)
    command = (CHECKOUT / "docs" / "command-line.md").read_text()
    assert all(f"`{part}`" in command for parts in doctor.GUARANTEES.values() for part in parts)


def examined(capsys, *arguments: str) -> tuple[int, Any]:
    """Examine for a program; return the exit code and what was said."""
    code = cli.main(["doctor", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_in_memory_everything_works_in_this_process(capsys) -> None:
    code, found = examined(capsys, "--url", "memory://")
    assert code == 0
    assert {each["name"]: each["works"] for each in found["checks"]} == {
        **dict.fromkeys(["connection", "values", "counters", "scan", "leases", "tags"], True),
        **dict.fromkeys(["locks", "sessions", "limits"], True),
        "sharing": None,
    }
    assert "sharing" not in found


def test_an_engine_that_is_not_there_is_the_only_finding_and_shows_no_password(capsys) -> None:
    port = free_port()
    code, found = examined(capsys, "--url", f"redis://:open-sesame@127.0.0.1:{port}/0")
    assert code == 1
    (only,) = found["checks"]
    assert (only["name"], only["works"], found["guarantees"]) == ("connection", False, [])
    assert only["found"].startswith(f"cannot reach the engine at 127.0.0.1:{port}")
    assert "open-sesame" not in json.dumps(found)
    assert cli.main(["doctor", "--url", f"redis://:open-sesame@127.0.0.1:{port}/0"]) == 1
    said = capsys.readouterr().out
    assert "open-sesame" not in said
    assert "what you can rely on" not in said


@pytest.mark.parametrize("url", ["foo://host", "hazelcast://host", "redis://host:port/0"])
def test_a_bad_url_is_2(capsys, url) -> None:
    assert cli.main(["doctor", "--url", url]) == 2
    assert capsys.readouterr().err.startswith("nearcache doctor: ")
