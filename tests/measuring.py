"""Tests that interrupt the program anywhere must spare the tool that measures coverage: its lock would stay taken."""

from pathlib import Path
from types import FrameType


def is_measuring(frame: FrameType | None) -> bool:
    """Tell whether this frame, or one that called it, is coverage's own code."""
    while frame is not None:
        if "coverage" in Path(frame.f_code.co_filename).parts:
            return True
        frame = frame.f_back
    return False
