"""What an invalidation returns that the engine could not be told of yet."""

from typing import Final, Literal


class Queued:
    """An invalidation that waits for the engine to answer again; false, and told by `isinstance(result, Queued)`.

    It is not acknowledged: other processes may read the old value until it was repeated, which happens before this
    process sends anything else, or reads. What this process asks for meanwhile is a miss here. The queue is in memory:
    it ends with its process.
    """

    __slots__ = ()

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "Queued()"


QUEUED: Final = Queued()
