"""Scripts that run inside the engine, from the package's `scripts` folder."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name the engine gives it."""

    text: str
    sha: str


ABOUT_LEASES: Final = frozenset({"acquire", "steal", "fill", "commit", "release"})
"""Scripts that begin with what is written in `lease.lua`."""

ABOUT_LOCKS: Final = frozenset({"lock_acquire", "lock_release"})
"""Scripts that begin with what is written in `lock.lua`."""

ABOUT_SESSIONS: Final = frozenset({"session_create", "session_load", "session_save"})
"""Scripts that begin with what is written in `session.lua`."""

ABOUT_LIMITS: Final = frozenset({"limit_sliding", "limit_fixed", "limit_gcra"})
"""Scripts that begin with what is written in `limit.lua`."""

SHARED: Final = {"lease": ABOUT_LEASES, "lock": ABOUT_LOCKS, "session": ABOUT_SESSIONS, "limit": ABOUT_LIMITS}
"""What several scripts begin with."""

REPEATABLE: Final = ABOUT_LEASES | {
    "mark",
    "restore",
    "bus",
    "lock_acquire",
    "session_create",
    "session_load",
    "session_enlist",
    "workers",
}
"""Scripts that may run again when a reply was lost: a second run changes nothing that is wrong to change. A second
`commit` removes what the first has stored.
"""


@cache
def script(name: str) -> Script:
    """Read the script `name`.lua."""
    shared = [each for each, scripts in SHARED.items() if name in scripts]
    return made("".join(map(_read, (*shared, name))))


def made(text: str) -> Script:
    """Return the script of a text."""
    # The engine names scripts by this digest; it protects nothing.
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def repeatable() -> frozenset[str]:
    """Return the engine's names of the scripts that may run again."""
    return frozenset(script(name).sha for name in REPEATABLE)


def command_at(sha: str, line: int) -> str | None:
    """Return the command that a script calls in a line (the first is 1), None if that is not to be told."""
    for path in files("nearcache.backends.redis").joinpath("scripts").iterdir():
        if (found := script(path.name.removesuffix(".lua"))).sha == sha:
            called = _CALL.search(found.text.splitlines()[line - 1])
            return called[1] if called else None
    return None


_CALL: Final = re.compile(r"redis\.p?call\('(\w+)'")


def _read(name: str) -> str:
    return files("nearcache.backends.redis").joinpath("scripts", f"{name}.lua").read_text("utf-8")
