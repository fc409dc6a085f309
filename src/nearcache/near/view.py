"""What a process knows of a namespace's marks: when each tag was last invalidated, and when everything was.

A *mark* is a stamp that the engine gives to an invalidation; stamps of one namespace only grow. A value carries the
*epoch* of its load: the newest stamp that its process knew before the load began. A mark above the epoch says that the
load may be older than the invalidation, so the value is invalid for every reader, even if it was stored afterwards.

What is not known is asked for; what the engine no longer knows counts as marked (`purge`). So a record of marks that
was evicted or lost costs loads, and never an old value.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from nearcache._core.clock import Clock

ALL: Final = ""
"""Stands for everything among the tags whose invalidation is owed."""

KNOWN: Final = " "
"""Stands, among them, for all marks that are known: the engine may have lost them."""

NOTHING: Final = 1 << 64
"""More than any stamp."""

MOST_OWED: Final = 10_000
"""Invalidations that wait for an engine that does not answer; of more, one of everything is made."""

MOST_TAGS: Final = 20_000
"""Tags that a process remembers; beyond, it forgets all and asks again."""


AHEAD: Final = 1 << 20
"""How many marks others may know of an incarnation that are not known here yet."""


class Origin(NamedTuple):
    """Where stamps begin: `first` is the number of an incarnation of the namespace in the engine, `base` the stamp of
    this process after which those of that incarnation come. (0, 0): stamps are the same everywhere, and for ever.
    """

    first: int
    base: int


def _ignore(_tags: Iterable[str], _all: bool) -> None:
    pass


class View:
    """One process's knowledge of the marks of one namespace, for any number of threads.

    `budget` is how old, in seconds on `clock`, the knowledge may be that a read is judged by. A `fixed` view never has
    to be asked for: all marks are made by this process, or there are none.
    """

    __slots__ = (
        "_lock",
        "asked_after",
        "budget",
        "clear",
        "clock",
        "fixed",
        "known_from",
        "last",
        "news",
        "origin",
        "owed",
        "proven",
        "purge",
        "sure_from",
        "tags",
    )

    def __init__(self, clock: Clock, budget: float, *, fixed: bool = False) -> None:
        self.clock: Clock = clock
        self.budget: float = budget
        self.fixed: bool = fixed
        self.last: int = 0
        """The newest stamp known; 0 before the engine was asked."""
        self.origin: Origin = Origin(0, 0)
        """Where the engine's stamps begin, if they are not those of this process."""
        self.clear: int = 0
        """The stamp of the last invalidation of everything."""
        self.purge: int = 0
        """The stamp below which the engine has forgotten marks of tags."""
        self.known_from: int = 0
        """A tag without an entry in `tags` was not marked from this stamp on; before, nobody here knows."""
        self.sure_from: int = 0
        """Values of this epoch or a newer one are valid: `last`, or more than any stamp while marks are `owed`."""
        self.owed: dict[str, object] = {}
        """Tags whose invalidation the engine has not acknowledged; ALL for that of everything, KNOWN for all marks."""
        self.tags: dict[str, int] = {}
        self.proven: float = float("inf") if fixed else float("-inf")
        """When the request was sent whose answer this is."""
        self.asked_after: float = float("-inf")
        """An answer to what was sent before is not enough."""
        self.news: Callable[[Iterable[str], bool], None] = _ignore
        """Called with the tags that were found marked, and whether everything was; under the lock."""
        self.after_fork()

    @property
    def known(self) -> bool:
        """Whether the engine was asked at least once."""
        return self.fixed or self.last > 0

    def due(self, asking: bool) -> bool:
        """Whether the engine must be asked: at half the budget, and if somebody is `asking` already, at all of it."""
        sent = self.proven
        return sent < self.asked_after or self.clock() - sent > (self.budget if asking else self.budget / 2)

    def surpass(self) -> None:
        """Judge by no older knowledge than of now: somebody got what was loaded now, and must not go back in time."""
        self.asked_after = self.clock()

    # Stamps at rest, in the engine and in files

    def at_rest(self, stamp: int) -> int:
        """Return a stamp of this process as others understand it; 0 for one of an incarnation that is over."""
        first, base = self.origin
        return first + stamp - base if stamp > base else 0

    def here(self, stamp: int) -> int:
        """Return a stamp that was at rest as one of this process; 0 for one of another incarnation."""
        first, base = self.origin
        n = stamp - first
        return base + n if not first or 0 < n <= self.last - base + AHEAD else 0

    # Judging

    def holds(self, epoch: int, tags: Sequence[str]) -> bool:
        """Tell whether a value is valid, as far as is known; ask about its `unknown` tags first."""
        if epoch >= self.sure_from:
            return True
        if epoch < self.clear or (self.owed and (ALL in self.owed or not self.owed.keys().isdisjoint(tags))):
            return False
        marks, floor, known_from = self.tags, self.purge, self.known_from
        for tag in tags:
            mark = marks.get(tag)
            if (mark is None and epoch < known_from) or (mark or floor) > epoch:
                return False
        return True

    def unknown(self, epoch: int, tags: Sequence[str]) -> list[str]:
        """Return those of a value's tags that have to be asked for before it can be judged."""
        if epoch >= self.known_from or epoch < self.clear:
            return []
        return [tag for tag in tags if tag not in self.tags]

    # Learning

    def learn(self, sent: float, marks: Mapping[str, int], clear: int, purge: int = 0) -> None:
        """Take in all marks from the stamp on that was the last one known when the engine was asked, at `sent`.

        `clear` is 0 if everything was not invalidated since, `purge` if it is not known that marks were forgotten.
        """
        with self._lock:
            # An answer to an older question may come later, and what it holds is known by then.
            fresh = {tag: stamp for tag, stamp in marks.items() if self._is_news(tag, stamp)}
            cleared = clear > self.clear
            first = not self.known  # nothing was judged by anything older, so that there is nobody to tell
            self._remember(fresh)
            # Readers take no lock: what they compare with first is set last.
            self.purge = max(self.purge, purge)
            self.clear = max(self.clear, clear)
            self._reach(max(self.last, clear, *marks.values()))
            if (fresh or cleared) and not first:
                self.news(fresh, cleared)  # before anybody can prove that nothing else is new
            self.proven = max(self.proven, sent)

    def restart(self, sent: float, marks: Mapping[str, int], clear: int, purge: int) -> None:
        """Begin anew with the newest marks, where there were too many to take in all since the last time."""
        newest = max([clear, *marks.values()])
        with self._lock:
            if newest == self.last:  # nothing is new: very many tags were marked at once, and come every time
                self.proven = max(self.proven, sent)
            if newest <= self.last:
                return
            first = not self.known
            self.known_from = min([newest, *marks.values()])
            self.tags = dict(marks)
            self.purge = max(self.purge, purge)
            self.clear = max(self.clear, clear)
            self._reach(newest)
            if not first:
                self.news(marks, True)
            self.proven = max(self.proven, sent)

    def forget(self) -> None:
        """Know nothing of marks up to now: there may be older ones that were never told."""
        with self._lock:
            self.known_from, self.tags = self.last, {}
            self.news((), True)

    def confirm(self, sent: float) -> None:
        """Note that the engine knew nothing new when it was asked at `sent`; waits for who is telling what was new."""
        with self._lock:
            self.proven = max(self.proven, sent)

    def told(self) -> int:
        """Return the newest stamp known, as it is kept at rest, after everybody was told of what it marks."""
        with self._lock:
            return self.at_rest(self.last)

    def marks(self) -> list[tuple[str, int]]:
        """Return the tags that are known to be marked, with their stamps."""
        with self._lock:
            return list(self.tags.items())

    # Marks that the engine has not acknowledged

    def owe(self, tags: Iterable[str], everything: bool) -> None:
        """Note that these invalidations must be repeated before anything else is sent; of too many, one of everything
        is made.
        """
        with self._lock:
            for tag in (*tags, *((ALL,) if everything else ())):
                self.owed[tag] = object()
            if len(self.owed) > MOST_OWED:
                self.owed = {ALL: object()}
            self._reach(self.last)

    def paid(self, marks: Iterable[tuple[str, object]]) -> None:
        """Note that these invalidations were acknowledged; one that is owed again meanwhile stays."""
        with self._lock:
            for tag, mark in marks:
                if self.owed.get(tag) is mark:
                    del self.owed[tag]
            self._reach(self.last)

    def _reach(self, last: int) -> None:
        self.last = last
        self.sure_from = NOTHING if self.owed else last

    def answer(self, marks: Mapping[str, int], purge: int, known_from: int) -> None:
        """Take in the answer to a question about single tags; 0 for those the engine knows nothing of.

        `known_from` is that of the view when it asked. If marks were forgotten since, among them may be one that is
        newer than this answer, so the tags stay unknown.
        """
        with self._lock:
            self.purge = max(self.purge, purge)
            if known_from == self.known_from:
                self._remember({tag: stamp for tag, stamp in marks.items() if stamp >= self.tags.get(tag, 0)})

    def _is_news(self, tag: str, stamp: int) -> bool:
        """Tell whether a mark is newer than what is known; where that was forgotten, an older one would hide it."""
        known = self.tags.get(tag)
        return stamp >= self.known_from if known is None else stamp > known

    def _remember(self, marks: Mapping[str, int]) -> None:
        if len(self.tags) + len(marks) > MOST_TAGS:
            self.known_from, self.tags = max([self.last, *marks.values()]), {}
        self.tags.update(marks)

    def after_fork(self) -> None:
        """Make the view usable in a forked child."""
        self._lock = threading.RLock()
