"""Compression with Zstandard, an optional extra."""

import importlib
from typing import Any, Final

from nearcache.errors import CodecError, ConfigError

_LIMIT: Final = 512 * 1024 * 1024
"""No engine takes more in one value, so nothing larger was ever compressed: a few bytes cannot ask for all memory."""


def require() -> None:
    """Raise `ConfigError` naming the remedy if the library is not installed."""
    try:
        _library()
    except ImportError:
        raise ConfigError('compression ("+zstd") needs zstandard: pip install "nearcache[zstd]"') from None


def compress(payload: bytes) -> bytes:
    """Return the payload as one Zstandard frame that states its content's size."""
    packed: bytes = _library().compress(payload)
    return packed


def decompress(packed: bytes | memoryview) -> bytes:
    """Return the payload; raises `CodecError` for a size beyond any engine's, or without the library."""
    try:
        library = _library()
    except ImportError:
        raise CodecError('a stored value is compressed; reading it needs pip install "nearcache[zstd]"') from None
    size = library.frame_content_size(bytes(packed[:18]))
    if not 0 <= size <= _LIMIT:
        raise CodecError("a compressed value does not state a possible size")
    payload: bytes = library.decompress(packed)
    return payload


def _library() -> Any:
    return importlib.import_module("zstandard")
