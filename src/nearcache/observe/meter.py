"""The bridge from a near store's numbers, which only grow, to counters that are told what is new."""

from collections.abc import Iterator

from nearcache._core.events import Loads, NearTier, Proofs


class Meter:
    """What the near tier of one cache counted, and how much of that Prometheus was told already."""

    __slots__ = ("__weakref__", "_evictions", "_hits", "_refused", "loads", "namespace", "near", "proofs")

    def __init__(self, namespace: str, near: NearTier, loads: Loads, proofs: Proofs) -> None:
        self.namespace: str = namespace
        self.near: NearTier = near
        self.loads: Loads = loads
        self.proofs: Proofs = proofs
        self._hits: dict[tuple[str, str], int] = {}
        self._evictions = self._refused = 0

    def new_hits(self) -> Iterator[tuple[str, str, int]]:
        """Yield entity, tier and number of the hits since the last time, and note that they were told."""
        for entity, tally in self.near.tallies().items():
            for tier, hits in (("near", tally.hits), ("engine", tally.engine)):
                new = hits - self._hits.get((entity, tier), 0)
                if new:
                    self._hits[entity, tier] = hits
                    yield entity, tier, new

    def new_evictions(self) -> int:
        """Return the evictions since the last time, and note that they were told."""
        new = self.near.evictions - self._evictions
        self._evictions += new
        return new

    def new_refusals(self) -> int:
        """Return the values refused since the last time, and note that they were told."""
        new = self.near.refusals - self._refused
        self._refused += new
        return new

    def forget(self) -> None:
        """Take everything up to now as told."""
        self.new_evictions()
        self.new_refusals()
        for _ in self.new_hits():
            pass
