"""What an embedded:// URL says: where the data lives, how much memory it may take, and whether the server stays."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from nearcache.errors import ConfigError

DEFAULT_MAXMEMORY: Final = "256mb"
SMALLEST_MAXMEMORY: Final = 4 * 1024 * 1024
"""In bytes. Below this an empty server has no room for values."""

UNITS: Final[dict[str, int]] = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
}
"""Bytes per unit, as the server itself reads them."""

TRUTHS: Final[dict[str, bool]] = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
SHAPE: Final = "write embedded:// or embedded:///absolute/path/to/dir"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one embedded server, as its URL gives them.

    `directory` is the absolute data directory, None for a server that keeps its data in memory only. `keep` says
    whether the last one to close leaves the server running; None: as it was asked for before. `maxmemory` is in bytes.
    """

    directory: Path | None
    keep: bool | None
    maxmemory: int


def parse(url: str) -> Settings:
    """Read an embedded:// URL; raises `ConfigError` naming what is wrong in it and what it may be."""
    parts = _split(url)
    options = _options(parts)
    keep = _keep(options.pop("keep", None))
    maxmemory = _maxmemory(options.pop("maxmemory", DEFAULT_MAXMEMORY))
    if options:
        unknown = ", ".join(sorted(options))
        raise ConfigError(f"url (CACHE_URL): embedded:// has no parameter {unknown}; it has keep and maxmemory")
    return Settings(_directory(parts), keep, maxmemory)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ConfigError(f"url (CACHE_URL): a bracket stands where embedded:// has no host; {SHAPE}") from None


def _options(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ConfigError("url (CACHE_URL): a parameter of embedded:// is given twice")
    return options


def _directory(parts: SplitResult) -> Path | None:
    if parts.netloc or parts.fragment or (not parts.path.startswith(("/", "//")) and parts.path):
        raise ConfigError(f"url (CACHE_URL): the directory of embedded:// must be an absolute path; {SHAPE}")
    path = unquote(parts.path)
    if path in ("", "/"):
        return None
    if "\0" in path:
        raise ConfigError("url (CACHE_URL): the directory of embedded:// has a NUL character in it")
    return Path(os.path.realpath(path))


def _keep(text: str | None) -> bool | None:
    if text is None:
        return None
    if text.lower() not in TRUTHS:
        raise ConfigError(f"url (CACHE_URL): keep={text[:20]!r} of embedded:// may be true or false")
    return TRUTHS[text.lower()]


def _maxmemory(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15})([a-z]*)", text.lower())
    if found is None or found[2] not in UNITS:
        raise ConfigError(f"url (CACHE_URL): maxmemory={text[:20]!r} of embedded:// must look like 256mb or 1gb")
    size = int(found[1]) * UNITS[found[2]]
    if size < SMALLEST_MAXMEMORY:
        raise ConfigError(f"url (CACHE_URL): maxmemory={text[:20]!r} of embedded:// is too small: at least 4mb")
    return size
