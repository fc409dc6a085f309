"""What goes wrong with a Hazelcast cluster, turned into errors of this library.

Messages of members are not repeated: they may quote a record.
"""

from typing import Final

from nearcache.backends.base import NotServing
from nearcache.backends.hazelcast.library import errors
from nearcache.backends.hazelcast.maps import Call, Place
from nearcache.backends.registers.names import about
from nearcache.errors import BackendError, BackendTimeoutError, BackendUnavailableError

GONE: Final = (
    OSError,
    errors.HazelcastClientNotActiveError,
    errors.HazelcastInstanceNotActiveError,
    errors.MemberLeftError,
    errors.TargetDisconnectedError,
    errors.TargetNotMemberError,
)
"""Whoever was to answer is not there any more."""

ADVICE: Final[dict[str, str]] = {
    "OutOfMemoryError": "the members are full: limit the map, as docs/hazelcast.yaml does",
    "NativeOutOfMemoryError": "the members are full: limit the map, as docs/hazelcast.yaml does",
    "ReachedMaxSizeError": "the map is full and may not evict: give it an eviction-policy",
    "SplitBrainProtectionError": "too few members are there for the map's split-brain protection",
    "AccessControlError": "the members want a login, which this library does not have",
}
"""What to do about an error, by its type."""


def failed(error: BaseException, call: Call | None, place: Place) -> BackendError:
    """Return the error for what a call ended with, or, without one, what kept a client from being opened."""
    subject = "" if call is None else about(call.name)
    match error:
        case BackendError():
            return _copied(error)
        case TimeoutError() | errors.OperationTimeoutError():
            return not_in_time(place) if call is None else BackendTimeoutError(_slow(place), subject)
        case _ if call is None or isinstance(error, errors.ClientOfflineError):
            return _unreachable(place)
        case errors.IndeterminateOperationStateError():
            return NotServing("the members have not confirmed that they keep it; one may just have died", subject)
        case _ if isinstance(error, GONE):
            return BackendUnavailableError(f"the member that keeps it is gone ({type(error).__name__})", subject)
        case _:
            kind = type(error).__name__
            return BackendError(f"the members answered {kind}{_advice(kind)}", subject)


def interrupt_in(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """Return what a signal handler raised inside the client, which may have made an error of its own of it; else None.

    `handled` is the exception that was being handled before the client was called.
    """
    cause: BaseException | None = error
    while cause is not None and cause is not handled:
        if not (isinstance(cause, errors.HazelcastError) or _is_of_python(cause)):
            return cause
        cause = cause.__context__
    return None


def _is_of_python(error: BaseException) -> bool:
    return isinstance(error, Exception) and type(error).__module__ == "builtins"


def not_in_time(place: Place) -> BackendError:
    """Return the error for a cluster that was not connected in time."""
    return BackendTimeoutError(f"connecting to {place.cluster.described()}: {_slow(place)}").undone()


def _unreachable(place: Place) -> BackendError:
    return BackendUnavailableError(
        f"no member lets us into {place.cluster.described()}: does one run there, and are the members and the name in "
        'url (CACHE_URL) right? The logger "hazelcast" tells more at level INFO'
    ).undone()


def _slow(place: Place) -> str:
    return f"no answer within {place.timeout:g} s"


def _copied(error: BackendError) -> BackendError:
    """Return an equal error: each of several waiters raises its own, with its own traceback."""
    copy = type(error)(*error.args)
    copy.why, copy.ambiguous = error.why, error.ambiguous
    return copy


def _advice(kind: str) -> str:
    return f"; {ADVICE[kind]}" if kind in ADVICE else ""
