"""Every Python example of README.md and docs/ runs, in a process of its own and from an empty folder."""

import os
import subprocess
import sys

import pytest

from tools.examples import pages, program
from tools.source import ROOT


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page, tmp_path) -> None:
    script = tmp_path / "example.py"  # a page may be called like a package
    script.write_text(program(page))
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
