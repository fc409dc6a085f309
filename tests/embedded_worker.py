"""A process of its own that uses an embedded server, told what to do by lines on its standard input.

python embedded_worker.py <folder instead of /tmp> <url> [<where it kills itself>]
"""

import signal
import sys
from pathlib import Path

from nearcache.backends.embedded import place, share
from nearcache.backends.embedded.settings import parse


def answer(lease: share.Lease, word: str) -> str:
    """Do what one line says; the server's address, or "left"."""
    if word == "join":
        return lease.address()
    lease.release()
    return "left"


def main() -> None:
    """Do as told: `join` and `leave` are answered by a line, `exit` ends the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    place.TEMPORARY = Path(sys.argv[1])
    lease = share.Lease(parse(sys.argv[2]), timeout=5.0)
    for line in sys.stdin:
        if line == "exit\n":
            return
        print(answer(lease, line.strip()), flush=True)


if __name__ == "__main__":
    main()
