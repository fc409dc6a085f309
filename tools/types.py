"""Check the types for every platform and Python the library claims: `python -m tools.types`.

mypy and pyright read the package for each pair of platform and version, mypy reads tests and tools as well, and pyright
says whether every public name has a complete type.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tools.source import ROOT

# As mypy and as pyright call it.
PLATFORMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
VERSIONS = ("3.11", "3.14")
CHECKED = ("src", "tests/typing")

AT_ONCE = 2
"""Runs of a checker at the same time."""

Command = list[str]
Done = subprocess.CompletedProcess[str]


def commands() -> Iterator[Command]:
    """Return every run of a checker."""
    yield [*mypy("native")]
    yield [*pyright()]
    for version in VERSIONS:
        for platform, name in PLATFORMS.items():
            target = ["--platform", platform, "--python-version", version]
            yield [*mypy(f"{platform}-{version}"), *target, *CHECKED]
            yield [*pyright(), "--pythonplatform", name, "--pythonversion", version, *CHECKED]


def mypy(cache: str) -> Command:
    """Return the call of mypy with a cache of its own."""
    return [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", f".mypy_cache/{cache}"]


def pyright() -> Command:
    """Return the call of pyright, in this environment."""
    return [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]


def run(command: Command) -> Done:
    """Run a checker."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def passes(done: Done, known: set[str]) -> bool:
    """Tell whether a checker found nothing; print what it found, and is not known yet from an earlier run."""
    print("ok  " if done.returncode == 0 else "FAIL", *done.args[2:], flush=True)
    if done.returncode:
        lines = dict.fromkeys((done.stdout + done.stderr).splitlines())
        print(*(line for line in lines if line not in known), sep="\n")
        known.update(lines)
    return done.returncode == 0


def complete() -> bool:
    """Say whether every public name, and every name in its types, has a complete type; print what lacks one."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "nearcache", "--ignoreexternal", "--outputjson"]
    # This mode of pyright finds the package through the interpreter that comes first on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)["typeCompleteness"]
    print(*incomplete(report), sep="\n")
    print(f"complete types: {report['completenessScore']:.1%} of {len(report['symbols'])} names")
    return bool(report["completenessScore"] == 1)


def incomplete(report: dict[str, Any]) -> list[str]:
    """Return what pyright's report complains about, without what only follows from another complaint in it."""
    problems = [problem for symbol in report["symbols"] for problem in symbol["diagnostics"]]
    found = {_shown(problem) for problem in problems if problem["severity"] == "error"}
    causes = {line for line in found if "partially unknown" not in line}
    return sorted(causes or found)


def _shown(problem: dict[str, Any]) -> str:
    line = problem["range"]["start"]["line"] + 1 if "range" in problem else 1
    return f"{problem['file'].removeprefix(f'{ROOT}/')}:{line}: {problem['message']}"


def main() -> int:
    """Run everything; return 1 if anything was found."""
    known: set[str] = set()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        passed = [passes(done, known) for done in pool.map(run, commands())]
    return 0 if all([*passed, complete()]) else 1


if __name__ == "__main__":
    sys.exit(main())
