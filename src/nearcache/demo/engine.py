"""The process of the embedded engine, for the scene that ends it."""

import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from nearcache.demo import processes


def pid() -> int:
    """Return the process id of the engine, which it writes into its data directory."""
    return int((Path(urlsplit(os.environ["CACHE_URL"]).path) / "server.pid").read_text())


def freeze() -> None:
    """Make the engine stop answering, without ending it."""
    processes.freeze(pid())


def kill() -> None:
    """End the engine without a chance to do anything."""
    if sys.platform != "win32":
        os.kill(pid(), signal.SIGKILL)
