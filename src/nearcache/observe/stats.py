"""Statistics of one cache, for Python.

Counting takes no lock, so that a forked child cannot inherit a held one. Under the global interpreter lock no count is
lost, because no thread switch can happen between reading and writing an attribute.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nearcache._core.events import Announced, Command, Event, Evicted, Failure, Hit, Load, Miss, NearTier, Spared
from nearcache.observe.labels import EntityLabels


@dataclass(frozen=True, slots=True)
class EntityStats:
    """Reads of one entity."""

    hits: int = 0
    misses: int = 0

    @property
    def hit_ratio(self) -> float:
        """Hits divided by all reads, 0 to 1; 0 if there were none."""
        return _ratio(self.hits, self.misses)


@dataclass(frozen=True, slots=True)
class Lag:
    """How many seconds it took from when this process sent a change until it heard it announced; samples of the last
    ones.
    """

    median: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class StatsView:
    """What one cache did in this process since it was made; a forked child goes on from its parent's numbers.

    `near_hits`, `engine_hits`, `stale_hits` and `flight_hits` add up to `hits`: they tell who answered. `errors`
    counts failed loads and records that could not be decoded as well as failures of the engine. Sizes are in bytes; a
    limit that is None does not exist. `evictions` are live entries that left the near tier for want of room.
    `near_refused` counts values that were near, and were asked for anew because nobody could prove that they were still
    right. `spared` counts calls that were answered at once because the engine does not answer, without asking it. `lag`
    is None before a change was announced. Among `misses_by_reason`, "evicted" is told on `memory://`
    only: what another engine has evicted is "cold".
    """

    hits: int
    misses: int
    near_hits: int
    engine_hits: int
    stale_hits: int
    flight_hits: int
    commands: int
    loads: int
    load_errors: int
    errors: int
    evictions: int
    engine_evictions: int
    near_entries: int
    near_bytes: int
    near_limit_entries: int | None
    near_limit_bytes: int | None
    near_refused: int = 0
    lag: Lag | None = None
    spared: int = 0
    misses_by_reason: Mapping[str, int] = field(default_factory=dict[str, int])
    by_entity: Mapping[str, EntityStats] = field(default_factory=dict[str, EntityStats])

    @property
    def hit_ratio(self) -> float:
        """Hits divided by all reads, 0 to 1; 0 if there were none."""
        return _ratio(self.hits, self.misses)


LAGS = 1_000
"""Lags that are kept."""


class _Count:
    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class _Counts:
    """Numbers by entity and kind."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Count] = {}

    def add(self, entity: str, kind: str, number: int) -> None:
        count = self._counts.get((entity, kind))
        if count is None:
            count = self._counts.setdefault((entity, kind), _Count())
        count.number += number

    def by_entity(self) -> Counter[str]:
        return _sums((entity, count.number) for (entity, _), count in self._counts.copy().items())

    def by_kind(self) -> Counter[str]:
        return _sums((kind, count.number) for (_, kind), count in self._counts.copy().items())


class Stats:
    """Listens to one cache and adds up."""

    def __init__(self, near: NearTier) -> None:
        self._near = near
        self._labels = EntityLabels()
        self._hits, self._misses = _Counts(), _Counts()
        self._lags: deque[float] = deque(maxlen=LAGS)
        self._commands = self._loads = self._load_errors = self._failures = self._engine_evictions = 0
        self._spared = 0

    def on(self, event: Event) -> None:
        """Count an event."""
        if type(event) is Command:  # these two come with every read, and `match` takes its time
            self._commands += 1
            return
        if type(event) is Hit:
            self._hits.add(self._labels.label(event.entity), event.tier, event.count)
            return
        match event:
            case Miss(entity, reason, count):
                self._misses.add(self._labels.label(entity), reason, count)
            case Load(error=error):
                self._loads += 1
                self._load_errors += error is not None
            case Failure():
                self._failures += 1
            case Evicted(count=count):
                self._engine_evictions += count
            case Spared():
                self._spared += 1
            case Announced(seconds):
                self._lags.append(seconds)
            case _:
                pass

    def snapshot(self) -> StatsView:
        """Return the numbers of this moment."""
        tallies = [(self._labels.label(entity), tally) for entity, tally in self._near.tallies().items()]
        near = _sums((entity, tally.hits) for entity, tally in tallies)
        engine = _sums((entity, tally.engine) for entity, tally in tallies)
        tiers, misses = self._hits.by_kind(), self._misses.by_kind()
        tiers["near"] += near.total()
        tiers["engine"] += engine.total()
        return StatsView(
            hits=tiers.total(),
            misses=misses.total(),
            near_hits=tiers["near"],
            engine_hits=tiers["engine"],
            stale_hits=tiers["stale"],
            flight_hits=tiers["flight"],
            commands=self._commands,
            loads=self._loads,
            load_errors=self._load_errors,
            errors=self._failures + self._load_errors,
            evictions=self._near.evictions,
            engine_evictions=self._engine_evictions,
            near_entries=self._near.entries,
            near_bytes=self._near.size_bytes,
            near_limit_entries=self._near.limit.entries,
            near_limit_bytes=self._near.limit.bytes,
            near_refused=self._near.refusals,
            spared=self._spared,
            lag=_lag(sorted(self._lags.copy())),
            misses_by_reason=dict(misses),
            by_entity=_paired(near + engine + self._hits.by_entity(), self._misses.by_entity()),
        )


def _lag(lags: Sequence[float]) -> Lag | None:
    return Lag(lags[len(lags) // 2], lags[len(lags) * 99 // 100], lags[-1]) if lags else None


def _sums(numbers: Iterable[tuple[str, int]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for name, number in numbers:
        sums[name] += number
    return sums


def _paired(hits: Counter[str], misses: Counter[str]) -> dict[str, EntityStats]:
    return {entity: EntityStats(hits[entity], misses[entity]) for entity in sorted({*hits, *misses})}


def _ratio(hits: int, misses: int) -> float:
    return hits / (hits + misses) if hits + misses else 0.0
