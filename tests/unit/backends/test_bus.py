"""What a process makes of the entries of others, of its own, and of those that are missing."""

from collections.abc import Iterable
from typing import Any

import pytest

from nearcache.backends.redis.bus import Bus
from nearcache.errors import BackendError
from nearcache.near.announced import LOST, Announced
from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flights
from nearcache.near.store import Limit, Store

STREAM = b"{app}~b"
EVERYTHING = "everything"


class Told(Coherence):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.now = 100.0
        super().__init__(Store(Limit(entries=9)), Flights(), lambda: self.now, 1.0, wanted=True)
        self.log = list[Any]()
        self.lags = list[float]()
        self.lagged = self.lags.append

    def changed(self, keys: Iterable[str]) -> None:
        """Note keys."""
        self.log.append(list(keys))

    def changed_all(self) -> None:
        """Note that everything is meant."""
        self.log.append(EVERYTHING)


class World:
    """A process, and the stream it reads."""

    def __init__(self) -> None:
        self.told = Told()
        self.stirred = 0
        self.announced = Announced(self.told, self.told.clock, self.stir)
        self.bus = Bus("app", self.announced)
        self.newest = b"0-0"
        self.learn([])

    def stir(self) -> None:
        """Count how often those who wait are to look again."""
        self.stirred += 1

    def entry(self, number: int, keys: str, name: str = "stranger", before: bytes | None = None) -> list[Any]:
        """Append an entry."""
        before, self.newest = self.newest if before is None else before, b"7-%d" % number
        return [self.newest, [b"c", b"%b %b %b" % (name.encode(), before, keys.encode())]]

    def learn(self, added: list[Any]) -> list[Any]:
        """Let the process learn of entries, and return what it told."""
        self.told.log.clear()
        self.bus.learn([[[self.newest, []]] if self.newest != b"0-0" else [], {STREAM: added} if added else None])
        return self.told.log

    def name(self) -> str:
        """Return the present name of the process."""
        _, (_, _, name, _) = self.bus.tell(["a"])
        return name


@pytest.fixture
def world() -> World:
    """A process that has heard of one entry."""
    world = World()
    world.learn([world.entry(1, "first")])
    return world


def test_keys_of_others_have_changed(world: World):
    assert world.learn([world.entry(2, "a b"), world.entry(3, "c")]) == [["a", "b", "c"]]
    assert not world.announced.marked
    assert world.learn([]) == []


def test_marks_of_others_are_to_be_asked_for(world: World):
    world.learn([world.entry(2, "")])
    assert world.announced.marked


def test_its_own_entries_are_passed_over(world: World):
    assert world.learn([world.entry(2, "a", world.name()), world.entry(3, "", world.name())]) == []
    assert not world.announced.marked
    assert world.learn([world.entry(4, "a", world.name()), world.entry(5, "a")]) == [["a"]]


def test_what_was_said_under_an_old_name_is_a_strangers(world: World):
    before = world.name()
    world.bus.rename()
    assert world.name() != before
    assert world.learn([world.entry(2, "a", before), world.entry(3, "b", world.name())]) == [["a"]]


@pytest.mark.parametrize("own", [True, False])
def test_where_an_entry_is_missing_everything_has_changed(world: World, own: bool):
    name = world.name() if own else "stranger"
    told = world.learn([world.entry(3, "a", name, before=b"7-2"), world.entry(4, "b", name)])
    assert told[0] == EVERYTHING
    assert world.announced.marked
    assert world.stirred == 1
    assert world.learn([world.entry(5, "c")]) == [["c"]]


def test_a_stream_that_was_emptied_is_begun_anew_by_another_connection(world: World):
    world.learn([world.entry(5, "a")])
    world.newest = b"0-0"
    with pytest.raises(BackendError, match="was emptied"):
        world.learn([])
    assert world.told.log == [EVERYTHING]


@pytest.mark.parametrize("end", [b"7-4", b"6-99"])
def test_a_stream_that_ends_earlier_than_before_has_lost_everything(world: World, end: bytes):
    world.learn([world.entry(5, "a")])
    world.newest = end
    assert world.learn([]) == [EVERYTHING]
    assert world.learn([]) == []
    assert world.learn([world.entry(6, "b")]) == [["b"]]


def test_places_are_compared_as_numbers(world: World):
    world.learn([world.entry(9, "a")])
    assert world.learn([world.entry(10, "b")]) == [["b"]]


def test_an_error_is_raised(world: World):
    with pytest.raises(BackendError, match="NOPERM"):
        world.bus.learn([[], RuntimeError("NOPERM this user")])


def test_an_entry_that_is_none_is_refused(world: World):
    with pytest.raises(ValueError, match="unpack"):
        world.bus.learn([[[b"7-2", []]], {STREAM: [[b"7-2", [b"c", b"hello"]]]}])


def test_the_way_of_its_own_changes_is_measured_once_per_proof(world: World):
    def change() -> None:
        world.announced.sample("a")
        world.told.now += 0.5
        world.learn([world.entry(int(world.newest[2:]) + 1, "a", world.name())])

    change()
    assert world.told.lags == []
    world.announced.proven(world.told.now)
    change()
    change()
    assert world.told.lags == [0.5]


def test_a_change_that_is_never_announced_does_not_end_the_measuring(world: World):
    world.announced.proven(world.told.now)
    world.announced.sample("never")
    world.announced.proven(world.told.now)
    world.announced.sample("a")
    world.told.now += LOST + 1
    world.announced.proven(world.told.now)
    world.announced.sample("b")
    assert world.learn([world.entry(2, "b")]) == [["b"]]
    assert world.told.lags == [0.0]
