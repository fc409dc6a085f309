"""Logging, on by default: one WARNING per change of state, as long as those are few, everything else at DEBUG.

The logger is `nearcache`. It gets a `NullHandler`, so that a program without logging stays silent; handlers and
levels are the program's business. No message contains a cached value or a password.
"""

import logging
import math
import time
from collections import deque
from typing import Final

from nearcache._core.clock import Clock
from nearcache._core.events import (
    Command,
    EngineBack,
    EngineLost,
    EngineRefused,
    EngineReset,
    Event,
    Hit,
    Load,
    LockLost,
    Miss,
    QueueFull,
    SnapshotUnused,
)
from nearcache.observe.labels import EntityLabels

logger: Final = logging.getLogger("nearcache")
logger.addHandler(logging.NullHandler())

REPEAT_AFTER: Final = 60.0
"""Seconds between two warnings about failed loads of one entity, or about an engine's refusals."""


MOST_LOSSES: Final = 5
"""How often an engine may be lost within `REPEAT_AFTER` before that is no news any more."""

_EVERYDAY: Final = frozenset({Command, Hit, Miss})
"""Events that come with every read."""


class _Failures:
    """What goes wrong again and again: when the last warning was, and how many times it did not tell of."""

    __slots__ = ("untold", "warned")

    def __init__(self) -> None:
        self.warned = -math.inf
        self.untold = 0


class _Losses:
    """When an engine was lost, lately."""

    def __init__(self) -> None:
        self.lost = False
        self._times = deque[float](maxlen=MOST_LOSSES)

    def note(self, now: float) -> None:
        """Add one more."""
        self._times.append(now)

    def are_many(self, now: float) -> bool:
        """Whether it comes and goes."""
        return len(self._times) == MOST_LOSSES and now - self._times[0] < REPEAT_AFTER


class Logging:
    """Listens to one cache and writes to the logger `nearcache`."""

    def __init__(self, namespace: str, clock: Clock = time.monotonic) -> None:
        self._namespace = namespace
        self._clock = clock
        self._labels = EntityLabels()
        self._failures: dict[str, _Failures] = {}
        self._losses: dict[str, _Losses] = {}

    def on(self, event: Event) -> None:
        """Write what is worth it."""
        if type(event) in _EVERYDAY and not logger.isEnabledFor(logging.DEBUG):
            return
        match event:
            case EngineLost(engine, error):
                self._engine_lost(engine, error)
            case EngineBack(engine):
                self._engine_back(engine)
            case EngineReset(engine, cleared):
                done = "everything is invalidated" if cleared else "recent invalidations are repeated"
                logger.warning("%s: the %s engine was reset; %s", self._namespace, engine, done)
            case EngineRefused(engine, error):
                self._seldom(f"the {engine} engine", "refuses", error)
            case QueueFull(waiting):
                what = "%s: %d invalidations waited for the engine; everything will be invalidated instead"
                logger.warning(what, self._namespace, waiting)
            case SnapshotUnused(path, doing, error):
                logger.warning("%s: the near snapshot %s is not %s: %s", self._namespace, path, doing, error)
            case Load(entity, _, str(error)):
                self._seldom(f"a load of {self._labels.label(entity)}", "failed", error)
            case _:
                self._rest(event)

    def _rest(self, event: Event) -> None:
        match event:
            case LockLost(entity):
                logger.warning(
                    "%s: a lock of %s was lost while it was held", self._namespace, self._labels.label(entity)
                )
            case _:
                if logger.isEnabledFor(logging.DEBUG):
                    logger.debug("%s: %r", self._namespace, event)

    def _engine_lost(self, engine: str, error: str) -> None:
        losses, now = self._losses.setdefault(engine, _Losses()), self._clock()
        if losses.lost:
            return
        losses.lost, level = True, logging.DEBUG if losses.are_many(now) else logging.WARNING
        losses.note(now)
        more = "; it comes and goes, which is not told of any more until it is rarer" if losses.are_many(now) else ""
        logger.log(level, "%s: the %s engine does not answer: %s%s", self._namespace, engine, error, more)

    def _engine_back(self, engine: str) -> None:
        losses = self._losses.get(engine)
        if losses is not None and losses.lost:
            losses.lost, level = False, logging.DEBUG if losses.are_many(self._clock()) else logging.WARNING
            logger.log(level, "%s: the %s engine answers again", self._namespace, engine)

    def _seldom(self, what: str, happened: str, error: str) -> None:
        """Warn of what may happen often, at most once a minute for each thing it happens to."""
        failures = self._failures.setdefault(what, _Failures())
        now = self._clock()
        if now - failures.warned >= REPEAT_AFTER:
            failures.warned = now  # nothing is called between the test and this, so no other thread passes the test too
            untold, failures.untold = failures.untold, 0
            more = f" ({untold} more {happened} since the last warning)" if untold else ""
            logger.warning("%s: %s %s: %s%s", self._namespace, what, happened, error, more)
        else:
            failures.untold += 1
            logger.debug("%s: %s %s: %s", self._namespace, what, happened, error)
