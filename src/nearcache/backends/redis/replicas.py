"""Reads from replicas that are known to be no further behind than a near value may be.

A primary counts the bytes that its replicas are to take in, and a replica those that it has taken in. Twice within the
budget the primary is asked for its number; a replica whose number is as high has everything that was acknowledged
before that question, so what it answers from then on is no older. Where no such question is young enough, and for keys
that this process has changed or read at the primary since, the primary itself is asked.
"""

import random
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

from nearcache._core.clock import Clock
from nearcache._core.fork import on_fork
from nearcache._core.urls import scheme_of
from nearcache.backends.base import Copied
from nearcache.backends.redis import facts
from nearcache.backends.redis.ask import where
from nearcache.backends.redis.errors import MISSHAPEN, good, records_of
from nearcache.backends.registry import BackendSpec
from nearcache.backends.transport.dialect import Command
from nearcache.backends.transport.history import History
from nearcache.backends.transport.link import SOON, Link
from nearcache.errors import BackendError, ConfigError, UnsupportedError

if TYPE_CHECKING:
    from nearcache.backends.redis.backend import RedisBackend

OPTION: Final = "read_from_replicas"
"""The option of the URL that has replicas read from."""

ANSWERS: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

HOW_FAR: Final[Command] = ("INFO", "replication")
"""The question how far a server's data is."""

LOOKS: Final = 2
"""Questions to the primary within the budget."""

MOST_MET: Final = 10_000
"""Keys that are remembered one by one; of more, all count as met."""

READABLE: Final = ("redis", "rediss", "redis+sentinel")
"""The schemes of engines whose replicas can be read."""

NEVER: Final = float("-inf")


def asked_for(url: str) -> tuple[str, bool]:
    """Return a URL without the option that has replicas read from, and whether it had it; `ConfigError` if wrong."""
    place, _, query = url.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    wanted = dict(options).get(OPTION)
    if wanted is None:
        return url, False
    if wanted not in ANSWERS:
        raise ConfigError(f"url (CACHE_URL): {OPTION}= is {wanted!r}; it may be yes or no")
    others = urlencode([(name, value) for name, value in options if name != OPTION])
    return f"{place}?{others}" if others else place, ANSWERS[wanted]


def check(spec: BackendSpec) -> None:
    """Raise `UnsupportedError` where replicas cannot be read."""
    if scheme_of(spec.url) not in READABLE:
        raise UnsupportedError(
            f"{scheme_of(spec.url)}:// cannot read from replicas; engines that can: {', '.join(READABLE)}"
        )
    if not spec.enveloped:
        raise UnsupportedError("codec='json' cannot read from replicas: its values have no header; use 'msgpack'")


def hasty(spec: BackendSpec) -> BackendSpec:
    """Return the settings for replicas: so little time that enough is left for the primary."""
    seconds = SOON * spec.timeout
    return replace(spec, timeout=seconds, pool_timeout=min(seconds, spec.pool_timeout))


@dataclass(frozen=True, slots=True)
class Position:
    """How far a primary's data was, in a history of that name, when it was asked at `sent` (on the clock)."""

    history: str
    offset: int
    sent: float

    def is_reached(self, told: Mapping[str, str]) -> bool:
        """Tell whether a server that says this of itself is a replica which has everything up to here."""
        return (
            told["role"] == "slave"
            and told["master_link_status"] == "up"
            and told["master_replid"] == self.history
            and int(told["slave_repl_offset"]) >= self.offset
        )


class Lag:
    """How far the replicas of one engine are, for both flavours and any number of threads.

    `budget` is how many seconds they may be behind.
    """

    def __init__(self, clock: Clock, budget: float) -> None:
        self._clock = clock
        self._budget = budget
        self._met: dict[str, float] = {}
        self._all_met = NEVER
        self._current: str | None = None
        self.after_fork()
        _all.add(self)

    def renew(self) -> None:
        """Begin anew: another engine answers, or another history of its data."""
        with self._lock:
            self._asked = NEVER
            self._positions: tuple[Position, ...] = ()
            self.places: tuple[str, ...] = ()
            """Where the replicas are: the one to be asked first, unless it is spared."""
            self._proven: dict[str, float] = {}
            self._spared: dict[str, float] = {}

    def after_fork(self) -> None:
        """Make it usable in a forked child, which chooses a replica for itself."""
        self._lock = threading.RLock()
        self.renew()

    # The primary

    def due(self) -> bool:
        """Tell whether the primary has to be asked; who is told so has to ask it."""
        now = self._clock()
        due = now - self._asked > self._budget / LOOKS
        if due:
            self._asked = now
        return due

    def learn(self, told: Mapping[str, str], sent: float) -> None:
        """Take in what the primary says of itself, which was asked at `sent`."""
        if told["role"] != "master":
            return
        position = Position(told["master_replid"], int(told["master_repl_offset"]), sent)
        places = {place for name, line in told.items() if (place := _place(name, line))}
        with self._lock:
            known = [position, *(each for each in self._positions if self.is_young(each.sent))]
            self._positions = tuple(sorted(known, key=lambda each: each.sent))  # answers may come in another order
            if places != set(self.places):
                self.places = tuple(random.sample(sorted(places), len(places)))  # not all processes ask the same one
            self._met = {key: at for key, at in self._met.items() if self.is_young(at)}

    # A replica

    def place(self) -> str | None:
        """Return where the replica is that is to be asked now, if there is one."""
        now = self._clock()
        place = next((place for place in self.places if self._spared.get(place, now) <= now), None)
        if place != self._current:
            with self._lock:  # it may lack what the one before has told
                self._current, self._all_met = place, now
        return place

    def spare(self, place: str) -> None:
        """Do not ask a replica for a while, and others before it from then on: it does not answer, or is too far
        behind.
        """
        with self._lock:
            self._spared[place] = self._clock() + self._budget / LOOKS
            self.places = tuple(sorted(self.places, key=place.__eq__))

    def arrive(self, place: str) -> None:
        """Note a new connection to a replica: it may have been restarted, with older data than it has told before."""
        with self._lock:
            self._proven.pop(place, None)
            if place == self._current:
                self._current = None

    def latest(self) -> float:
        """Return since when no change is missing at a replica that has all that the primary has told of."""
        return self._positions[-1].sent if self._positions else NEVER

    def proven(self, place: str) -> float:
        """Return since when no change is missing at a replica, as far as is known."""
        return self._proven.get(place, NEVER)

    def hear(self, place: str, told: Mapping[str, str]) -> None:
        """Take in what a replica says of itself."""
        with self._lock:
            if reached := [position.sent for position in self._positions if position.is_reached(told)]:
                self._proven[place] = max(reached)
            elif told["master_replid"] not in {position.history for position in self._positions}:
                self._proven.pop(place, None)

    def is_young(self, sent: float) -> bool:
        """Tell whether what no change since `sent` is missing in is not too old."""
        return self._clock() - sent < self._budget

    # This process

    def meet(self, keys: Iterable[str]) -> None:
        """Note that this process has just changed these keys, or read them at the primary: it must see nothing older
        from now on.
        """
        now = self._clock()
        with self._lock:
            self._met.update(dict.fromkeys(keys, now))
            if len(self._met) > MOST_MET:
                self._all_met = now
                self._met.clear()

    def unmet(self, keys: Iterable[str], since: float) -> list[str]:
        """Return those of the keys that this process has not met since then."""
        with self._lock:
            met = self._met
            return [key for key in keys if met.get(key, NEVER) < since] if self._all_met < since else []


class Arrivals(History):
    """What the connections to the replica at a place find."""

    def __init__(self, lag: Lag, place: str) -> None:
        super().__init__(lambda: None)
        self._lag = lag
        self._place = place

    def met(self, found: str) -> bool:
        """Have each new connection prove anew what it leads to, whatever its history is."""
        self._lag.arrive(self._place)
        return False


class RedisReplicas:
    """The port of reads from replicas; `link` makes the way to the one at an address."""

    def __init__(self, backend: "RedisBackend", lag: Lag, link: Callable[[str], Link]) -> None:
        self._backend = backend
        self._lag = lag
        self._make = link
        self._links: dict[str, Link] = {}

    def due(self) -> bool:
        """Tell whether the caller has to `look`."""
        return self._lag.due()

    async def look(self) -> None:
        """Ask the primary how far its data is, and where its replicas are."""
        sent = self._backend.clock()
        (answer,) = await self._backend.run(HOW_FAR)
        if isinstance(answer, Exception):  # the user may not ask that: nothing is read from replicas
            return
        with suppress(*MISSHAPEN):  # nor from an engine that tells it in another way
            self._lag.learn(facts.read(answer), sent)

    async def read(self, keys: Sequence[str]) -> Copied | None:
        """Read records from a replica; on the same trip, ask it how far its data is when there is news of the primary.

        It has a tenth of the time of a call, so that there is time to ask the primary.
        """
        lag, place = self._lag, self._lag.place()
        asked = lag.unmet(keys, lag.latest())
        if place is None or not asked or not lag.is_young(lag.latest()):
            return None
        questions: list[Command] = [HOW_FAR] if lag.proven(place) < lag.latest() else []
        try:
            records = await self._ask(place, asked, *questions)
        except (BackendError, *MISSHAPEN):
            lag.spare(place)
            return None
        told, since = dict(zip(asked, records, strict=True)), lag.proven(place)
        unmet = lag.unmet(asked, since) if lag.place() == place else []
        if lag.is_young(since):  # last: what was met before that is remembered until then
            return Copied({key: told[key] for key in unmet}, since)
        if questions:
            lag.spare(place)
        return None

    def meet(self, keys: Iterable[str]) -> None:
        """Note that nothing may be returned for these keys which is older than now."""
        self._lag.meet(keys)

    async def close(self) -> None:
        """Give up every connection."""
        for link in list(self._links.values()):
            await link.close()

    async def _ask(self, place: str, keys: Sequence[str], *questions: Command) -> list[bytes | None]:
        names = map(self._backend.named, keys)
        replies = self._link(place).execute(*questions, ("MGET", *names))
        *told, records = replies if isinstance(replies, list) else await replies
        for answer in told:
            self._lag.hear(place, facts.read(good(answer, place)))
        return records_of(good(records, keys[0]), keys)

    def _link(self, place: str) -> Link:
        if place not in self._links:
            links = {known: link for known, link in self._links.items() if known in self._lag.places}
            self._links = {**links, place: self._make(place)}
        return self._links[place]


def _place(name: str, line: str) -> str | None:
    """Return where the replica is that a line in an answer to INFO tells of, if it does and that follows."""
    if not re.fullmatch("slave[0-9]+", name):
        return None
    told = dict(part.split("=", 1) for part in line.split(","))
    return where(told["ip"], int(told["port"])) if told["state"] == "online" else None


_all: "weakref.WeakSet[Lag]" = weakref.WeakSet()


def _after_fork() -> None:
    for lag in list(_all):
        lag.after_fork()


on_fork(in_child=_after_fork)
