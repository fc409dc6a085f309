"""Tests that interrupt the program anywhere must spare the tool that measures coverage: its lock would stay taken."""

from pathlib import Path
from types import FrameType


def is_measuring(frame: FrameType | None) -> bool:
    """Tell whether coverage's own code runs in this frame, called by the program that it measures.

    Also where a signal comes while the handler of the one before still asks this: it is the same place.
    """
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        asking = parts[-1] == Path(__file__).name or frame.f_code.co_qualname == "Alarm.__call__"
        if not asking and ("coverage" in parts or "nearcache" in parts or "tests" in parts):
            return "coverage" in parts
        frame = frame.f_back
    return False
