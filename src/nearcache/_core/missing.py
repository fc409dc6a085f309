"""MISS: the answer "there is no such entry", which is not None and not any cached value."""

import enum
from typing import Final, Literal


class Missing(enum.Enum):
    """The type of `MISS`."""

    MISS = "MISS"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "MISS"


MISS: Final = Missing.MISS
