"""A near tier whose numbers a test sets."""

from dataclasses import dataclass, field

from nearcache.near.store import Limit
from nearcache.near.tally import Tally


@dataclass
class FakeNear:
    """Looks like a near store to listeners."""

    limit: Limit = field(default_factory=lambda: Limit(bytes=1_000))
    size_bytes: int = 0
    entries: int = 0
    evictions: int = 0
    refusals: int = 0
    hits: dict[str, Tally] = field(default_factory=dict)

    def hit(self, entity: str, times: int = 1) -> None:
        """Count near hits."""
        for _ in range(times):
            self.hits.setdefault(entity, Tally()).turn()

    def tallies(self) -> dict[str, Tally]:
        """Hits by entity."""
        return dict(self.hits)
