"""What has to be done when this process forks, where processes can."""

import os
import sys
from collections.abc import Callable


def _nothing() -> None:
    pass


def on_fork(*, in_child: Callable[[], None] = _nothing, before: Callable[[], None] = _nothing) -> None:
    """Have functions called before each fork of this process, and after it in the child; they cannot be taken back."""
    # the first half is for type checkers, the second for platforms that differ in more than their name
    if sys.platform != "win32" and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_child=in_child)
