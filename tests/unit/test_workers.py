"""The default cache says once that several workers will not share it."""

import os
import subprocess
import sys

PROGRAM = """
import logging, os, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout)
from nearcache import Cache
cache = Cache({url})
for _ in range(3):
    child = os.fork()
    if child == 0:
        cache.set("a:1", 1)
        grandchild = os.fork()
        if grandchild:
            os.waitpid(grandchild, 0)
        os._exit(0)
    os.waitpid(child, 0)
print("end")
"""


def run(url: str = "", **environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CACHE_", "WEB_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(url=url)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_cache_that_was_only_defaulted_to_warns_once_when_the_process_forks() -> None:
    warning, end = run()
    assert "forks" in warning
    assert "CACHE_URL" in warning
    assert end == "end"


def test_several_workers_are_known_before_they_fork() -> None:
    warning, _ = run(WEB_CONCURRENCY="4")
    assert "WEB_CONCURRENCY is 4" in warning


def test_memory_on_purpose_is_silent() -> None:
    assert run('"memory://"') == run(CACHE_URL="memory://") == run(CACHE_TYPE="memory", WEB_CONCURRENCY="4") == ["end"]
    assert len(run(WEB_CONCURRENCY="1")) == 2
