"""How internal records are named in the engine; no key of a cache can take such a name."""


def lease_of(key: str) -> str:
    """Return the name of the lease of an engine key: in the key's own slot of a cluster."""
    return f"{{{key}}}~l"


def waiters_of(key: str) -> str:
    """Return the name of the set of those who wait for an engine key's lease."""
    return f"{{{key}}}~w"


def lock_of(name: str) -> tuple[str, str, str, str]:
    """Return the names of the records of a lock, all in one slot of a cluster: who hold it, its last token, the queue
    of those who wait, and when they last asked. `name` is that of the lock, with the namespace in front.
    """
    return f"{{{name}}}~k", f"{{{name}}}~t", f"{{{name}}}~q", f"{{{name}}}~a"


def session_of(name: str) -> str:
    """Return the name of the record of a session; `name` has the namespace in front."""
    return f"{{{name}}}~s"


def sessions_of(user: str) -> str:
    """Return the name of the record of a user's sessions; `user` has the namespace in front."""
    return f"{{{user}}}~u"


def limit_of(name: str) -> str:
    """Return the name of the record of a limiter and an identity. `name` is theirs, with the namespace in front."""
    return f"{{{name}}}~r"


def workers_of(prefix: str) -> str:
    """Return the name of the record of the processes that use limiters; `prefix` is that of the namespace's keys."""
    return f"{{{prefix}}}~w"


def marks_of(namespace: str) -> str:
    """Return the name of the record of a namespace's marks."""
    return f"{{{namespace}}}~m"


def bus_of(namespace: str) -> str:
    """Return the name of the stream of changes in a namespace."""
    return f"{{{namespace}}}~b"


def heartbeat_of(namespace: str, number: int) -> str:
    """Return the name of a record that never exists, in another slot for nearly every number."""
    return f"{{{namespace}:{number}}}~h"
