"""Every error the library raises, in one tree.

    CacheError
    ├── ConfigError (ValueError)            a setting, an argument or a declaration is wrong
    ├── InvalidKeyError (ValueError)        a key breaks the naming rules
    ├── CodecError (ValueError)             a value cannot be stored and come back with its type
    ├── UnsupportedError                    this engine or platform cannot do it; the message names what can
    ├── BackendError                        the engine failed
    │   ├── BackendTimeoutError (TimeoutError)          it did not answer in time, or no connection was free
    │   └── BackendUnavailableError (ConnectionError)   it cannot be reached
    ├── LoaderTimeoutError (TimeoutError)   a load did not end within its bound
    ├── LoadFailedError                     a load failed in another process; the message names the error's type
    ├── LockNotAcquiredError                somebody else holds the lock
    ├── LockLostError                       the lock's lease ended while it was held
    ├── SessionLostError                    the session was destroyed, or has expired
    ├── LimitExceededError                  a rate limit refused the call
    └── BatchError                          some keys of a batch failed; see .values and .errors

Messages name the key or setting, never a cached value, session id or password.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class CacheError(Exception):
    """The base of every error raised by nearcache."""


class ConfigError(CacheError, ValueError):
    """A setting, an argument or a declaration is wrong."""


class InvalidKeyError(CacheError, ValueError):
    """A key breaks the naming rules."""


class CodecError(CacheError, ValueError):
    """A value cannot be stored so that it comes back with the same type."""


class UnsupportedError(CacheError):
    """This engine or platform cannot do what was asked; the message names what can."""


class BackendError(CacheError):
    """The engine failed.

    `why` is the message without what it is about, which may name keys: for logs. `ambiguous` is False when it is
    certain that nothing changed there: the command never reached the engine, or the engine refused it. `answered` holds
    by key what was answered about the keys of a batch that did not fail, where only a part did: on a cluster, those of
    other nodes. It is empty where all failed.
    """

    why: str
    ambiguous: bool = True
    answered: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, why: str, about: str = "") -> None:
        super().__init__(f"{about}: {why}" if about else why)
        self.why = why

    def undone(self) -> "BackendError":
        """Mark this error as one after which nothing has changed, and return it."""
        self.ambiguous = False
        return self


class BackendTimeoutError(BackendError, TimeoutError):
    """The engine did not answer in time, or no connection became free in time."""


class BackendUnavailableError(BackendError, ConnectionError):
    """The engine cannot be reached."""


class LoaderTimeoutError(CacheError, TimeoutError):
    """A load did not end within its bound."""


class LoadFailedError(CacheError):
    """A load failed in another process; the message names the type of its error."""


class LockNotAcquiredError(CacheError):
    """Somebody else holds the lock."""


class LockLostError(CacheError):
    """The lock's lease ended while it was held."""


class SessionLostError(CacheError):
    """The session was destroyed, has expired, or has got another id since it was loaded."""


class LimitExceededError(CacheError):
    """A rate limit refused the call.

    `retry_after` is in how many seconds it would be allowed, `headers` what to tell HTTP clients: `Verdict.headers()`.
    """

    def __init__(self, message: str, retry_after: float, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.retry_after: float = retry_after
        self.headers: Mapping[str, str] = headers


class BatchError(CacheError):
    """Some keys of a batch failed: `values` holds what succeeded, `errors` the error of each failed key (or item)."""

    def __init__(self, message: str, values: Mapping[Any, Any], errors: Mapping[Any, BaseException]) -> None:
        super().__init__(message)
        self.values: dict[Any, Any] = dict(values)
        self.errors: dict[Any, BaseException] = dict(errors)
