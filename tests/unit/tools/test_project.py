"""The project's own files agree with one another."""

import re
import tomllib

from tools.source import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_extra_all_has_every_other_extra() -> None:
    others = PROJECT["optional-dependencies"].keys() - {"all"}
    assert set(re.findall(r"\w+", PROJECT["optional-dependencies"]["all"][0])) == others | {"nearcache"}


def test_the_lock_pins_every_direct_dependency_and_names_no_index() -> None:
    lock = (ROOT / "requirements-dev.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    wanted = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    names = {name for lines in wanted for line in lines for name in re.findall(r"^[a-z0-9-]+", line)}
    assert names - {"nearcache"} <= pinned
    assert "://" not in lock


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## {re.escape(PROJECT['version'])}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_target_of_the_makefile_has_a_description() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):.* ## \w", makefile, re.MULTILINE))
