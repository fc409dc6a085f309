"""Signed pickles: a pickle runs code when it is loaded, so one that this secret did not sign is never loaded."""

import hashlib
import hmac
import pickle
from typing import Any, Final, cast

from nearcache.codecs.mismatch import SchemaMismatch
from nearcache.codecs.names import name_of
from nearcache.errors import CodecError, ConfigError

_SIGNATURE_BYTES: Final = 32
_SHORTEST_SECRET: Final = 16
_PURPOSE: Final = b"nearcache pickle 1"
"""Signed together with the payload, so that a signature made for something else is worth nothing here."""
_PROTOCOL: Final = 5


class SignedPickle:
    """Writes `HMAC-SHA256 || pickle` and loads only what carries a valid signature."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str | bytes | None) -> None:
        key = secret.encode() if isinstance(secret, str) else secret or b""
        if len(key) < _SHORTEST_SECRET:
            raise ConfigError(
                f"codec='pickle' needs secret= of at least {_SHORTEST_SECRET} bytes, shared by all readers: loading a"
                " pickle runs code, so only signed ones are loaded"
            )
        self._secret = key

    def __repr__(self) -> str:
        return "SignedPickle(secret=...)"

    def write(self, value: object) -> bytes:
        """Return the signed pickle; raises `CodecError` if it would not load again as the same type."""
        try:
            payload = pickle.dumps(value, _PROTOCOL)
            back = type(cast("object", load(payload)))
        except Exception as error:  # noqa: BLE001 -- user code; not chained, for messages may quote values
            raise CodecError(f"a {name_of(type(value))} cannot be pickled ({type(error).__name__})") from None
        if back is not type(value):
            raise CodecError(f"a {name_of(type(value))} would be unpickled as {name_of(back)}")
        return self._sign(payload) + payload

    def read(self, signed: bytes | memoryview) -> Any:
        """Return the value; raises `CodecError` for a wrong signature, `SchemaMismatch` if it does not load here."""
        payload = self.verify(signed)
        try:
            return load(payload)
        except Exception as error:  # noqa: BLE001 -- user code; not chained, for messages may quote values
            raise SchemaMismatch(f"a signed pickle does not load in this release ({type(error).__name__})") from None

    def verify(self, signed: bytes | memoryview) -> bytes:
        """Return the pickle if its signature is valid."""
        signature, payload = bytes(signed[:_SIGNATURE_BYTES]), bytes(signed[_SIGNATURE_BYTES:])
        if not hmac.compare_digest(signature, self._sign(payload)):
            raise CodecError("the signature of a stored pickle is not valid")
        return payload

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, _PURPOSE + payload, hashlib.sha256)


def load(verified: bytes) -> Any:
    """Return the value of a pickle that was made here or whose signature was verified."""
    return pickle.loads(verified)  # noqa: S301 -- verified
