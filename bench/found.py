"""A contender's builder, and the versions of what it builds on."""

import platform
from importlib import import_module
from importlib.metadata import version
from typing import Any

from bench.row import Contender


def found(contender: Contender) -> tuple[str, Any]:
    """Return the room of a contender's builder, and the builder."""
    room, _, name = contender.build.partition(":")
    return room, getattr(import_module(f"bench.contenders.{room}"), name)


def versions(contender: Contender) -> dict[str, str]:
    """Return the versions of what is measured."""
    return {"python": platform.python_version()} | {name: version(name) for name in contender.packages}
