"""The entry of the command line: it finds the command, and turns errors into exit codes."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final, Protocol

from nearcache import CacheError, ConfigError, UnsupportedError
from nearcache.cli import bench, doctor
from nearcache.cli.options import add_common

FAILED: Final = 1
BAD_USAGE: Final = 2
INTERRUPTED: Final = 130


class Command(Protocol):
    """What a command's module has."""

    __doc__: str | None

    def configure(self, parser: ArgumentParser) -> None:
        """Add the command's own options."""
        ...

    def run(self, options: Namespace) -> int:
        """Do what the command is for; return the exit code."""
        ...


COMMANDS: Final[dict[str, Command]] = {"bench": bench, "doctor": doctor}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 after a finding or a failure, or 2 for bad usage (argparse exits with it itself)."""
    # The error is printed here, once; without a handler the log's line would come out beside it.
    logging.getLogger("nearcache").addHandler(logging.NullHandler())
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options)
    except (ConfigError, UnsupportedError) as error:
        return told(options, error, BAD_USAGE)
    except CacheError as error:
        return told(options, error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def parser() -> ArgumentParser:
    """Return the parser of all commands."""
    whole = ArgumentParser("nearcache", description="Tools for caches made with nearcache.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        about = (command.__doc__ or "").partition("\n")[0]
        one = commands.add_parser(name, help=about, description=about)
        add_common(one)
        command.configure(one)
    return whole


def told(options: Namespace, error: Exception, code: int) -> int:
    """Print one line about an error; return the exit code."""
    print(f"nearcache {options.command}: {error}", file=sys.stderr)
    return code
