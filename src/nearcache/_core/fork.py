"""What has to be done when this process forks, where processes can."""

import os
import sys
from collections.abc import Callable


def _nothing() -> None:
    pass


def on_fork(*, in_child: Callable[[], None], in_parent: Callable[[], None] = _nothing) -> None:
    """Have functions called right after each fork of this process; they cannot be taken back."""
    # the first half is for type checkers, the second for platforms that differ in more than their name
    if sys.platform != "win32" and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child, after_in_parent=in_parent)
