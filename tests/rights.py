"""The rule of docs/rights.md, read from that page, and users who have it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import CHECKOUT, RedisServer

PAGE = CHECKOUT / "docs" / "rights.md"
PERMISSION = re.compile(r"[~&+]\S+")


def permissions(namespace: str = "app", *, stream: bool = False) -> list[str]:
    """Return the permissions of the page's rule for a namespace, with those that `bus="stream"` adds."""
    rule, addition, _ = re.findall(r"^ACL SETUSER cache (.*)$", PAGE.read_text(), re.MULTILINE)
    text = f"{rule} {addition}" if stream else rule
    return [of_namespace(permission, namespace) for permission in PERMISSION.findall(text)]


def of_namespace(permission: str, namespace: str) -> str:
    """Return a permission for another namespace than that of the page."""
    return re.sub(r"\bapp\b", namespace, permission)


@contextmanager
def user(server: RedisServer, name: str, rights: list[str]) -> Iterator[str]:
    """Have a user with these rights and no others for the block, which gets their URL."""
    server.command("ACL", "SETUSER", name, "reset", "on", ">open-sesame", "resetchannels", *rights)
    try:
        yield f"redis://{name}:open-sesame@127.0.0.1:{server.port}/0"
    finally:
        server.command("ACL", "DELUSER", name)
