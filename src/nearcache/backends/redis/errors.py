"""Errors of the engine and of sockets, turned into this library's at one place.

Only the first words of an engine's answer are repeated: further on it may quote arguments, which may be values or a
password.
"""

import re
import ssl
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from nearcache.backends import base
from nearcache.backends.base import NotServing
from nearcache.backends.redis import lua
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError

DOWN: Final = frozenset({"LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOMASTERLINK", "TRYAGAIN"})
"""Answers of an engine that is there and cannot serve yet."""

UNKNOWN: Final = "ERR unknown command"
"""What is answered to a command that the engine does not have."""

ADVICE: Final[dict[str, str]] = {
    "WRONGPASS": "check user and password in url (CACHE_URL)",
    "NOAUTH": "put user and password into url (CACHE_URL)",
    "NOPERM": "give the user in url (CACHE_URL) this permission; docs/rights.md has the whole rule",
    "READONLY": "url (CACHE_URL) points at a replica; point it at the primary",
    "OOM": "the engine is full; set a maxmemory-policy that evicts, such as allkeys-lru",
    "MISCONF": "the engine cannot save to disk and refuses writes; see its log",
    UNKNOWN: "is it older than Redis 6.2, a proxy, or a sentinel? url (CACHE_URL) with ?protocol=2 does without HELLO",
    "MOVED": "it is a node of a cluster; url (CACHE_URL) must begin with redis+cluster://",
    "ERR SELECT is not allowed in cluster mode": "it is a node of a cluster; url (CACHE_URL) must begin with "
    "redis+cluster://, and names no database",
    "ERR This instance has cluster support disabled": "url (CACHE_URL) of a single server begins with redis://",
    "ERR DB index is out of range": "url (CACHE_URL) names a database that the engine does not have",
    "LOADING": "the engine is still reading its data; try again soon",
}
"""What to do about an answer, by how it begins."""

CLIENT_CERTIFICATE: Final = (
    "does it want a client certificate, or another one? url (CACHE_URL) names it with ?ssl_certfile=...&ssl_keyfile=..."
)

IS_THERE_TLS: Final = "does it speak TLS there? If not, url (CACHE_URL) begins with redis://"

ANOTHER_AUTHORITY: Final = (
    "url (CACHE_URL) must name a file with the authority that signed the engine's certificate, ?ssl_ca_certs=..."
)

NOT_ITS_TIME: Final = "renew the certificate of the engine that url (CACHE_URL) names, or set the clock of this machine"

ANOTHER_HOST: Final = "url (CACHE_URL) must name a host that is in the engine's certificate"

UNTRUSTED: Final[dict[int, str]] = {9: NOT_ITS_TIME, 10: NOT_ITS_TIME, 62: ANOTHER_HOST, 64: ANOTHER_HOST}
"""What to do about a certificate, by the number that OpenSSL gives to what is wrong with it (X509_V_ERR_...)."""


_DENIED: Final = re.compile(
    r"(?:(?<=ACL failure in script: )|(?=The user executing the script can't )).*?(?= script:|$)"
)
"""What engines answer to a script that does what its user may not: they tell either the command or only the line."""

_PLACE: Final = re.compile(r"([0-9a-f]{40})\b.*@user_script:(\d+)")


_RECORDS: Final = frozenset({bytes, type(None)})

MISSHAPEN: Final = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What reading an answer raises that has another form than engines give."""


def code_of(reply: object) -> str:
    """Return the first word of an error answer, such as "NOSCRIPT"; "" if the reply is no error."""
    return str(reply).partition(" ")[0] if isinstance(reply, Exception) else ""


class InPart(Exception):
    """Stands for the answer to a command about several keys some of which failed; `replies` are those about each."""

    def __init__(self, replies: list[Any]) -> None:
        super().__init__(next(str(reply) for reply in replies if isinstance(reply, Exception)))
        self.replies: list[Any] = replies


def parts_of(replies: Sequence[Any]) -> list[Any]:
    """Return answers with those about each key in the place of one that failed in part."""
    return [part for reply in replies for part in (reply.replies if isinstance(reply, InPart) else [reply])]


def refused(reply: Exception, subject: str) -> BackendError:
    """Build the error for an engine's error answer to a command about `subject`; what is one already is returned."""
    if isinstance(reply, BackendError):
        return reply
    code, text = code_of(reply), str(reply)
    if denied := _DENIED.search(text):
        code, text = "NOPERM", f"NOPERM {_denied_command(denied, text)}"
    kind = NotServing if code in DOWN else BackendError
    advice = next((f"; {ADVICE[start]}" for start in ADVICE if text.startswith(start)), "")
    return kind(f"the engine answered {_safe(text)}{advice}", subject).undone()


def good(reply: Any, subject: str) -> Any:
    """Return an answer to a command about `subject`; raises if it is an error."""
    if isinstance(reply, BackendError):
        raise reply
    if isinstance(reply, Exception):
        raise refused(reply, subject) from reply
    return reply


def in_part(keys: Sequence[str], *replies: Any) -> BackendError:
    """Build the error for a batch some keys of which failed; each of `replies` is about all of the keys together, or a
    list of those about each.
    """
    each = list(zip(keys, *(_about_each(reply, len(keys)) for reply in replies), strict=True))
    errors, answered = list[BackendError](), dict[str, Any]()
    for key, *about in each:
        wrong = [refused(reply, key) for reply in about if isinstance(reply, Exception)]
        errors += wrong
        if not wrong:
            answered[key] = about[-1]
    return base.in_part(errors, answered)


def _about_each(reply: InPart | list[Any] | bytes | int | None, count: int) -> list[Any]:
    if isinstance(reply, InPart):
        return reply.replies
    if isinstance(reply, list):
        # A list of another length is nonsense that an engine has sent.
        return reply if len(reply) == count else [reply] * count
    return [reply] * count


def unexpected(reply: Any, subject: str) -> NoReturn:
    """Raise the error for an answer that no engine gives."""
    raise NotServing(
        f"the engine answered with a {type(reply).__name__} where none belongs; is it a Redis or Valkey?", subject
    )


def whole(reply: Any, subject: str) -> int:
    """Return an answer that is a whole number, or the text of one; raises if it is an error or anything else."""
    try:
        return int(good(reply, subject))
    except MISSHAPEN:
        unexpected(reply, subject)


def records_of(reply: Any, keys: Sequence[str]) -> list[bytes | None]:
    """Return an answer that is a record, or nothing, for each key; raises if it is an error or anything else."""
    if isinstance(reply, Exception):
        raise in_part(keys, reply)
    answer: list[bytes | None] = reply
    if type(reply) is not list or len(answer) != len(keys) or not _RECORDS.issuperset(map(type, answer)):
        unexpected(reply, keys[0])
    return answer


def unreachable(where: str, error: OSError, *, tls: bool) -> BackendError:
    """Build the error for an engine that cannot be connected to, by a connection that was to speak `tls` or not."""
    if isinstance(error, TimeoutError):
        return BackendTimeoutError(f"connecting to {where} took too long{f'; {IS_THERE_TLS}' * tls}").undone()
    problem, advice = f"cannot reach the engine at {where}", "is it running, and is url (CACHE_URL) right?"
    if tls and isinstance(error, (ssl.SSLError, ConnectionResetError)):
        problem, advice = f"no TLS with the engine at {where}", _about_tls(error)
    return BackendUnavailableError(f"{problem} ({_reason(error)}): {advice}").undone()


def not_greeted(where: str, error: Exception, *, tls: bool) -> BackendError:
    """Build the error for a connection that broke, or told nonsense, before the engine had answered anything."""
    if isinstance(error, TimeoutError):
        return BackendTimeoutError(f"the engine at {where} did not greet in time").undone()
    if tls and isinstance(error, OSError):
        return BackendUnavailableError(
            f"the engine at {where} hung up as soon as TLS was agreed on ({_reason(error)}): {CLIENT_CERTIFICATE}"
        ).undone()
    hint = "" if tls else "; if it speaks TLS, url (CACHE_URL) begins with rediss://"
    return BackendUnavailableError(f"{where} does not speak as a Redis engine does{hint}").undone()


def _about_tls(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UNTRUSTED.get(error.verify_code, ANOTHER_AUTHORITY)
    alerted = isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")
    return CLIENT_CERTIFICATE if alerted else IS_THERE_TLS


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "the connection broke").lower().replace("_", " ")
    return error.strerror or str(error) or type(error).__name__


def _denied_command(denied: re.Match[str], text: str) -> str:
    """Say what a script may not do: newer engines tell, older ones tell the line of the script."""
    place = _PLACE.search(text)
    command = lua.command_at(place[1], int(place[2])) if place else None
    return f"the user may not run {command!r} in a script" if command else denied[0]


def _safe(text: str) -> str:
    return text.partition(", with args")[0][:120]
