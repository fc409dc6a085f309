"""What Memcached answers when it refuses, turned into errors of this library.

Only the first words of an answer are repeated: further on it may quote what was sent.
"""

from typing import Final

from nearcache.backends.base import NotServing
from nearcache.backends.registers.names import about
from nearcache.errors import BackendError

ADVICE: Final[dict[str, str]] = {
    "SERVER_ERROR object too large for cache": (
        "the record is larger than the server takes (1 MB, unless its option -I says otherwise), and an older one was "
        "removed: raise -I, compress, or cache less under one key"
    ),
    "SERVER_ERROR out of memory": "the server is full and may not, or cannot, evict: raise its option -m, or drop -M",
    "CLIENT_ERROR unauthenticated": "the server wants a login, which this library does not have",
    "ERROR": "is it older than Memcached 1.6.13, or a proxy? The meta protocol is needed",
}
"""What to do about an answer, by how it begins."""

SHOWN: Final = 60
"""Characters of an answer that are repeated."""


def refused(answer: str, subject: str) -> BackendError:
    """Build the error for an error answer to a command about `subject`."""
    advice = next((advice for start, advice in ADVICE.items() if answer.startswith(start)), "")
    return BackendError(f"the engine answered {answer[:SHOWN]}{f'; {advice}' if advice else ''}", about(subject))


def unexpected(reply: object, subject: str) -> BackendError:
    """Build the error for an answer that does not belong to the command."""
    return NotServing(
        f"the engine answered with a {type(reply).__name__} where none belongs; is it a Memcached?", about(subject)
    )
