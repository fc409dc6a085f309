"""What works where the platform has no `os.fork`, no `fcntl` and no unix sockets, as on Windows."""

import os
import subprocess
import sys

# Taken away before anything of the library is imported, in a process of its own.
PLATFORM = """
import os, socket, sys
for module, names in ((os, ("fork", "forkpty", "register_at_fork", "getuid", "geteuid")), (socket, ("AF_UNIX",))):
    for name in names:
        delattr(module, name)
sys.modules["fcntl"] = None
sys.modules["pwd"] = None
"""


def run(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PLATFORM + program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_memory_works_without_fork_fcntl_and_unix_sockets() -> None:
    run("""
from nearcache import Cache
with Cache("memory://") as cache:
    cache.set("users:1", "Ada")
    assert cache.get("users:1") == "Ada"
""")


def test_redis_works_without_fork_fcntl_and_unix_sockets(redis_server) -> None:
    run(f"""
from nearcache import Cache
with Cache("{redis_server.url}", namespace="platforms", near=None) as cache:
    cache.set("users:1", "Ada")
    assert cache.get("users:1") == "Ada"
""")


def test_embedded_says_that_this_platform_cannot() -> None:
    run("""
from nearcache import Cache, UnsupportedError
try:
    Cache("embedded://").open()
except UnsupportedError as error:
    assert sys.platform in str(error).lower(), error
else:
    raise AssertionError("embedded:// worked without unix sockets")
""")


def test_a_blocking_program_does_not_import_asyncio():
    code = "import sys; from nearcache import Cache; Cache('memory://').get('a:1'); sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})
