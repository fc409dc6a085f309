"""Encrypted fields of sessions: whoever may read in the engine learns nothing, and what they change is not believed.

Every session has a key of its own, made from yours and its name by HMAC-SHA256. So what was written for one session is
worth nothing in another, and no key is used for so many values that random nonces could meet. A field is
`number of the key (4 bytes) || nonce (12) || AES-256-GCM of the value`, and its name is authenticated with it.
"""

import hashlib
import hmac
import importlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nearcache.errors import CodecError, ConfigError

_NUMBER: Final = 4
_NONCE: Final = 12
_PURPOSE: Final = b"nearcache session 1"
"""Part of what a key is made from, so that yours may serve elsewhere too."""


class Sealing:
    """Encrypts with the first key, and decrypts with whichever was used; without keys it changes nothing."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {hashlib.sha256(_PURPOSE + key).digest()[:_NUMBER]: key for key in keys}
        if keys:
            _require()

    def __repr__(self) -> str:
        return "Sealing(...)"

    def seal(self, name: str, fields: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the fields of a session as the engine gets them."""
        if not self._keys:
            return dict(fields)
        number, key = next(iter(self._keys.items()))
        cipher = _cipher(key, name)
        sealed = dict[bytes, bytes]()
        for field, value in fields.items():
            nonce = secrets.token_bytes(_NONCE)
            sealed[field] = number + nonce + cipher.encrypt(nonce, value, field)
        return sealed

    def open(self, name: str, sealed: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the fields of a session; raises `CodecError` if one was not written for it with one of the keys."""
        if not self._keys:
            return dict(sealed)
        ciphers = {number: _cipher(key, name) for number, key in self._keys.items()}
        return {field: _opened(ciphers, field, value) for field, value in sealed.items()}


def _opened(ciphers: Mapping[bytes, Any], field: bytes, sealed: bytes) -> bytes:
    cipher, rest = ciphers.get(sealed[:_NUMBER]), sealed[_NUMBER:]
    if cipher is None:
        raise CodecError("a field of a stored session is encrypted with none of the keys")
    try:
        value: bytes = cipher.decrypt(rest[:_NONCE], rest[_NONCE:], field)
    except Exception as error:  # noqa: BLE001 -- of the library, for what is too short and what is not authentic
        raise CodecError(f"a field of a stored session is not authentic ({type(error).__name__})") from None
    return value


def _cipher(key: bytes, name: str) -> Any:
    return _library().AESGCM(hmac.digest(key, _PURPOSE + name.encode(), hashlib.sha256))


def _require() -> None:
    try:
        _library()
    except ImportError:
        raise ConfigError('session_keys needs cryptography: pip install "nearcache[encryption]"') from None


def _library() -> Any:
    return importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
