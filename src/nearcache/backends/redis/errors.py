"""Errors of the engine and of sockets, turned into this library's at one place.

Only the first words of an engine's answer are repeated: further on it may quote arguments, which may be values or a
password.
"""

from typing import Any, Final

from nearcache.backends.base import NotServing
from nearcache.errors import BackendError, BackendUnavailableError

DOWN: Final = frozenset({"LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOMASTERLINK", "TRYAGAIN"})
"""Answers of an engine that is there and cannot serve yet."""

ADVICE: Final[dict[str, str]] = {
    "WRONGPASS": "check user and password in url (CACHE_URL)",
    "NOAUTH": "put user and password into url (CACHE_URL)",
    "NOPERM": "give the user in url (CACHE_URL) this permission",
    "READONLY": "url (CACHE_URL) points at a replica; point it at the primary",
    "OOM": "the engine is full; set a maxmemory-policy that evicts, such as allkeys-lru",
    "MISCONF": "the engine cannot save to disk and refuses writes; see its log",
    "LOADING": "the engine is still reading its data; try again soon",
}
"""What to do about an answer, by its first word."""


def code_of(reply: object) -> str:
    """Return the first word of an error answer, such as "NOSCRIPT"; "" if the reply is no error."""
    return str(reply).partition(" ")[0] if isinstance(reply, Exception) else ""


def refused(reply: Exception, subject: str) -> BackendError:
    """Build the error for an engine's error answer to a command about `subject`."""
    code = code_of(reply)
    kind = NotServing if code in DOWN else BackendError
    advice = f"; {ADVICE[code]}" if code in ADVICE else ""
    return kind(f"{subject}: the engine answered {_safe(str(reply))}{advice}").undone()


def good(reply: Any, subject: str) -> Any:
    """Return an answer to a command about `subject`; raises if it is an error."""
    if isinstance(reply, Exception):
        raise refused(reply, subject) from reply
    return reply


def unreachable(where: str, error: OSError) -> BackendUnavailableError:
    """Build the error for an engine that cannot be connected to."""
    reason = error.strerror or str(error) or type(error).__name__
    return BackendUnavailableError(
        f"cannot reach the engine at {where} ({reason}): is it running, and is url (CACHE_URL) right?"
    )


def _safe(text: str) -> str:
    return text.partition(", with args")[0][:120]
