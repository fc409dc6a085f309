"""What signs and what encrypts: checked, and never shown."""

from base64 import b64decode
from collections.abc import Iterable
from typing import Final, cast

from nearcache.errors import ConfigError

SESSION_KEY: Final = 32
"""Bytes of a key for sessions."""


def checked_secret(secret: object) -> str | bytes | None:
    """Return the secret that signs; raises `ConfigError`, which never shows it."""
    if secret is None or (isinstance(secret, (str, bytes)) and secret):
        return secret
    raise ConfigError("secret must be a str or bytes that is not empty")


def checked_session_keys(keys: object) -> tuple[bytes, ...]:
    """Return the keys that encrypt sessions; raises `ConfigError`, which never shows one."""
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise ConfigError("session_keys must be a list of keys, the one to encrypt with first")
    return tuple(_session_key(number, key) for number, key in enumerate(cast(Iterable[object], keys)))


def _session_key(number: int, key: object) -> bytes:
    try:
        raw = b64decode(key + "=" * (-len(key) % 4), b"-_", validate=True) if isinstance(key, str) else key
    except ValueError:
        raw = None
    if isinstance(raw, bytes) and len(raw) == SESSION_KEY:
        return raw
    made = f"secrets.token_urlsafe({SESSION_KEY})"
    raise ConfigError(f"session_keys[{number}] must be {SESSION_KEY} random bytes, or a text that {made} has made")
