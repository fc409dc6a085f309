"""What every command takes: `--url`, else the `CACHE_*` variables, and `--json`."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from nearcache import Cache


def add_common(parser: ArgumentParser) -> None:
    """Add the options that every command has."""
    parser.add_argument("--url", help="where the cache is, as in CACHE_URL, which this beats")
    parser.add_argument("--json", action="store_true", help="print JSON for programs instead of a table")


def cache_of(options: Namespace, **more: Any) -> Cache:
    """Return a cache at `--url`, or where the variables say."""
    return Cache(**({"url": options.url} if options.url is not None else {}), **more)


def positive(most: float) -> Any:
    """Return a converter for numbers above 0 and at most `most`.

    >>> positive(60)("0.5")
    0.5
    """

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= most:
            raise ArgumentTypeError(f"it is {text!r}; it must be a number above 0 and at most {most:g}")
        return value

    return number
