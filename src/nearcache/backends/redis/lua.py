"""Scripts that run inside the engine, from the package's `scripts` folder."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name the engine gives it."""

    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Read the script `name`.lua."""
    text = files("nearcache.backends.redis").joinpath("scripts", f"{name}.lua").read_text("utf-8")
    # The engine names scripts by this digest; it protects nothing.
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
