"""Loading what will be asked for ahead of those who ask: batch after batch, at a bounded pace."""

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from nearcache._core.outcome import Outcome
from nearcache._engine.batch import LoadMany
from nearcache._io.port import Io, pause
from nearcache.errors import ConfigError, InvalidKeyError

MOST_AT_ONCE: Final = 10_000
"""Keys in one batch."""

MOST_ERRORS: Final = 100
"""Errors that are kept one by one."""

Ask = Callable[[list[str], LoadMany], Any]
"""Returns what came of each key, and calls the loader for what is not cached; keys without a value are left out."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """What `warm` has done up to now, in numbers of keys.

    `fresh`: cached already, or loaded by somebody else meanwhile. `loaded`: by this call. `missing`: the loader had
    nothing for them. `failed`: their load raised; `errors` has the first 100 of these errors by key.
    """

    fresh: int = 0
    loaded: int = 0
    missing: int = 0
    failed: int = 0
    errors: Mapping[str, BaseException] = field(default_factory=dict[str, BaseException])

    @property
    def done(self) -> int:
        """All keys that were looked at."""
        return self.fresh + self.loaded + self.missing + self.failed

    def and_also(self, keys: list[str], asked: set[str], outcomes: Mapping[str, Outcome[Any]]) -> "Warmed":
        """Return the numbers with those of one more batch, of which the loader was `asked` for some."""
        failed = {key: each.error for key, each in outcomes.items() if each.error is not None}
        there = [key for key in outcomes if key not in failed]
        loaded = sum(key in asked for key in there)
        return Warmed(
            self.fresh + len(there) - loaded,
            self.loaded + loaded,
            self.missing + len(keys) - len(outcomes),
            self.failed + len(failed),
            dict(islice({**self.errors, **failed}.items(), MOST_ERRORS)),
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """How many keys are looked at together, and how many are loaded in a second at most; None: as fast as it goes."""

    batch: int
    per_second: float | None

    def __post_init__(self) -> None:
        if type(self.batch) is not int or not 1 <= self.batch <= MOST_AT_ONCE:
            raise ConfigError(f"batch is {self.batch!r}; it must be a whole number from 1 to {MOST_AT_ONCE}")
        rate: object = self.per_second
        if rate is not None and not (type(rate) in (int, float) and 0.0 < self.seconds(1) < math.inf):
            raise ConfigError(f"per_second is {rate!r}; it must be a number of keys, more than zero, or None")

    def seconds(self, loaded: int) -> float:
        """Return how long the next load has to wait after so many keys."""
        if self.per_second is None:
            return 0.0
        return loaded / self.per_second if self.per_second > 0 else math.inf

    def batches(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """Cut keys into pieces, as they come; none is larger than what a second may bring."""
        if isinstance(keys, str):
            raise InvalidKeyError("keys are a list or another iterable of str, not a str")
        size = self.batch if self.per_second is None else max(1, min(self.batch, int(self.per_second)))
        rest = iter(keys)
        while some := list(dict.fromkeys(islice(rest, size))):
            yield some


async def warm(
    io: Io,
    ask: Ask,
    keys: Iterable[str],
    loader: LoadMany,
    pace: Pace,
    ready: Callable[[], Any],
    progress: Callable[[Warmed], object] | None,
) -> Warmed:
    """Look at all keys, load what is not fresh, and return what was done; `ready` raises if that makes no sense."""
    told, due = Warmed(), -math.inf
    await ready()
    for some in pace.batches(keys):
        asked, started = set[str](), time.monotonic()
        outcomes = await ask(some, _noting(asked, loader))
        await ready()
        told = told.and_also(some, asked, outcomes)
        if progress is not None:
            progress(told)
        due = max(due, started) + pace.seconds(len(asked))
        await pause(io, due)
    return told


def _noting(asked: set[str], loader: LoadMany) -> LoadMany:
    """Return the loader, made to note what it is asked for."""

    @functools.wraps(loader)
    def note(keys: list[str]) -> Any:
        asked.update(keys)
        return loader(keys)

    return note
