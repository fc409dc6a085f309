"""What was invalidated in the last minute, and that too much of it is not forgotten in silence."""

import pytest

from nearcache.near import recent
from nearcache.near.recent import REMEMBERED, Recent
from nearcache.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_keys_are_remembered_for_a_minute_since_they_were_noted_last(clock: FakeClock) -> None:
    noted = Recent(clock)
    noted.note(["a:1", "a:2"])
    clock.advance(REMEMBERED / 2)
    noted.note(["a:1", "a:3"])
    assert noted.all() == (["a:2", "a:1", "a:3"], True)
    clock.advance(REMEMBERED / 2)
    assert noted.all() == (["a:1", "a:3"], True)
    clock.advance(REMEMBERED / 2)
    assert noted.all() == ([], True)


def test_one_key_takes_one_place_however_often_it_is_noted(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MOST", 3)
    noted = Recent(clock)
    for _ in range(10):
        noted.note(["a:1", "a:2", "a:3"])
    assert noted.all() == (["a:1", "a:2", "a:3"], True)


def test_too_many_keys_count_as_everything_for_a_minute(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MOST", 3)
    noted = Recent(clock)
    noted.note(["a:1"])
    clock.advance(REMEMBERED / 2)
    noted.note(["a:2", "a:3", "a:4"])
    assert noted.all() == (["a:2", "a:3", "a:4"], False)
    clock.advance(REMEMBERED / 2)
    assert noted.all() == (["a:2", "a:3", "a:4"], True), "the one that was forgotten is too old by now"


def test_a_handler_may_note_keys_while_keys_are_noted(clock: FakeClock) -> None:
    noted = Recent(clock)

    class Interrupting(list[str]):
        def __iter__(self):
            for key in super().__iter__():
                noted.note(["handler:1"])
                yield key

    noted.note(Interrupting(["a:1", "a:2"]))
    assert noted.all() == (["a:1", "handler:1", "a:2"], True)
