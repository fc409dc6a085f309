"""A process of its own that uses an embedded server, told what to do by lines on its standard input.

python embedded_worker.py <folder instead of /tmp> <url> [<where it kills itself>]
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from nearcache.backends.embedded import place, process, share
from nearcache.backends.embedded.settings import parse


def kill_itself_at(where: str) -> None:
    """Arrange for SIGKILL at a bad moment: before or after `<module>.<function>` of the package is run."""
    moment, _, name = where.partition(":")
    module, _, function = name.partition(".")
    owner = {"process": process, "share": share, "Share": share.Share}[module]
    real = getattr(owner, function)

    def deadly(*arguments: Any) -> Any:
        if moment == "after":
            real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, function, deadly)


def answer(lease: share.Lease, word: str) -> str:
    """Do what one line says; the server's address, or "left"."""
    if word == "join":
        return lease.address()
    lease.release()
    return "left"


def main() -> None:
    """Do as told: `join` and `leave` are answered by a line, `exit` ends the process."""
    place.TEMPORARY = Path(sys.argv[1])
    lease = share.Lease(parse(sys.argv[2]), timeout=5.0)
    if len(sys.argv) > 3:
        kill_itself_at(sys.argv[3])
    for line in sys.stdin:
        if line == "exit\n":
            return
        print(answer(lease, line.strip()), flush=True)


if __name__ == "__main__":
    main()
