"""Which slot of a cluster a command goes to, and what becomes of commands about several keys.

A cluster runs a command only where all of its keys are in one slot, so what names several is sent as one command for
each, and the answers are put together again.
"""

from binascii import crc_hqx
from typing import Any, Final

from nearcache.backends.redis.dialect import SCRIPTS
from nearcache.backends.redis.errors import InPart, code_of
from nearcache.backends.transport.dialect import Command

SLOTS: Final = 16_384

KEYLESS: Final = frozenset({"TIME", "PING", "INFO", "SCAN"})
"""Commands that may go to any node."""

FOLLOWING: Final = frozenset({"WAIT"})
"""Commands about the one before them, which go to the same node."""

OF_SEVERAL_KEYS: Final = frozenset({"MGET", "DEL"})
"""Commands that are split."""


def slot_of(name: str) -> int:
    """Return the slot of an engine key: that of what stands in its first braces, if anything does."""
    start = name.find("{")
    end = name.find("}", start + 1) if start >= 0 else -1
    if end > start + 1:
        name = name[start + 1 : end]
    return crc_hqx(name.encode(), 0) % SLOTS


def key_of(command: Command) -> str | None:
    """Return the first key of a command, None if it has none."""
    name = command[0]
    if name in KEYLESS:
        return None
    return str(command[3] if name in SCRIPTS else command[1])


def split(command: Command) -> list[Command]:
    """Return the commands that do for one key each what a command does for all of them."""
    name, *keys = command
    if name == "MGET":
        return [("GET", key) for key in keys]
    if name == "DEL":
        return [(name, key) for key in keys]
    return [command]


def joined(command: Command, replies: list[Any]) -> Any:
    """Return the answer to a command, made from those to its parts."""
    if command[0] not in OF_SEVERAL_KEYS:
        return replies[0]
    if command[0] == "MGET":
        replies = [reply if type(reply) is bytes else _record(reply) for reply in replies]
    if any(isinstance(reply, Exception) for reply in replies):
        return InPart(replies) if len(replies) > 1 else replies[0]
    if command[0] == "MGET":
        return replies
    nonsense = [reply for reply in replies if not isinstance(reply, int)]
    return nonsense[0] if nonsense else sum(replies)  # whoever asked says that no engine answers so


def _record(reply: Any) -> Any:
    """Return the answer of MGET where GET answered otherwise than with a record: a list of somebody's is no error."""
    return None if code_of(reply) == "WRONGTYPE" else reply
