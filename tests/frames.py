"""What a call costs that does not depend on the machine: the Python functions that it enters."""

import sys
from collections.abc import Callable
from typing import Any

from nearcache.testing import FakeClock


def frames_of(call: Callable[[], object]) -> list[str]:
    """Return the Python functions that a call enters, beside its own and the clock made for tests."""
    entered: list[str] = []

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code is not FakeClock.__call__.__code__:
            entered.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered[1:]  # the first is `call` itself
