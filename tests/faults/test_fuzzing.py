"""The tests of hostile input once more, for as long as you like, with inputs that coverage leads to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import CHECKOUT, missing

WHAT = ("records", "replies", "keys", "templates", "settings", "urls")
OPTIONS = ("-max_total_time=30", "-max_len=4096", "-len_control=0", "-timeout=30")


@pytest.fixture(scope="module", name="atheris")
def _atheris() -> Path:
    """A folder with Atheris, which is not among the packages for developers: not every platform has it."""
    folder = CHECKOUT / ".cache" / "versions" / "atheris"
    install = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", str(folder), "atheris>=3.0"]
    if not (folder / "atheris").exists() and subprocess.run(install, check=False).returncode:
        missing("the package atheris cannot be installed; is PyPI within reach, and a wheel for this platform there?")
    return folder


@pytest.mark.soak
@pytest.mark.parametrize("what", WHAT)
def test_inputs_that_coverage_leads_to_break_nothing(what: str, atheris: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(CHECKOUT / "src"), str(CHECKOUT), str(atheris)])
    command = [sys.executable, "-m", "tests.faults.fuzzing", what, *OPTIONS]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    assert "Done" in done.stderr, "it ran for as long as it was to"
