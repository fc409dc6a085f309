"""A thread of the background: it works while there is something to do, whatever interrupted its start."""

import threading

from nearcache.backends.errand import Errand
from tests.promises.helpers import SignalAt, eventually, interrupted


class Collecting(Errand):
    """Takes what is there."""

    name = "nearcache-test"

    def __init__(self) -> None:
        super().__init__()
        self.there = list[int]()

    @property
    def _needed(self) -> bool:
        return bool(self.there)

    def _work(self, ended: threading.Event) -> None:
        while self.there and not ended.is_set():
            self.there.pop()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == Collecting.name]


def test_it_ends_when_there_is_nothing_to_do_and_begins_anew() -> None:
    errand = Collecting()
    errand.start()
    assert not threads()
    for _ in range(3):
        errand.there.extend(range(3))
        errand.start()
        eventually(lambda: not errand.there and not threads(), "all is done")


@interrupted
def test_a_start_that_was_interrupted_anywhere_is_made_up_by_the_next() -> None:
    errand = Collecting()
    for place in range(1, 1000):
        errand.there.append(place)
        if not (where := SignalAt(place, threads=True).run(errand.start)):
            assert place > 5
            return
        errand.start()
        eventually(lambda: not errand.there and not threads(), f"it is done though it was interrupted at {where}")
    raise AssertionError("the start never ended")
