"""What has to be renewed, because it lives on only as long as its owner does."""


class Renewal:
    """A lease, or a lock, that is renewed until it is let go.

    `record` is what it is called in the engine, `life` how many seconds it lives without a renewal, `until` the time
    (monotonic) beyond which it is not renewed, `how` what renews it, where the engine has to be told.
    """

    __slots__ = ("how", "life", "lost", "record", "renewed", "until")

    def __init__(self, record: str, life: float, until: float, renewed: float, how: str = "") -> None:
        self.how: str = how
        self.record: str = record
        self.life: float = life
        self.until: float = until
        self.renewed: float = renewed
        """When the last renewal that the engine agreed to was sent (monotonic), infinity where none is needed."""
        self.lost: bool = False
        """Whether the engine has said that it belongs to another, or to nobody."""
