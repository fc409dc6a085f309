"""What the eviction policy is made of."""

import gc
import random

import pytest

from nearcache.near.queues import GENERATION, Ghosts, Queue, Ranks
from nearcache.near.slot import Slot
from nearcache.near.tally import Tally


def slot(key: str) -> Slot:
    return Slot(key, 1, Tally())


def ranks(*worths: float) -> tuple[Ranks[Slot], list[Slot]]:
    made: Ranks[Slot] = Ranks()
    slots = [slot(str(number)) for number in range(len(worths))]
    for each, worth in zip(slots, worths, strict=True):
        made.add(each, worth)
    return made, slots


def popped(made: Ranks[Slot], count: int) -> str:
    return "".join(item.key for _ in range(count) if (item := made.pop()))


def queued(count: int) -> tuple[Queue[Slot], list[Slot]]:
    made: Queue[Slot] = Queue()
    slots = [slot(str(number)) for number in range(count)]
    for each in slots:
        made.append(each)
    return made, slots


def chained(made: Queue[Slot]) -> str:
    """Return the keys of a queue, after comparing both directions of the chain."""
    forth, item = list[Slot](), made.first
    while item is not None:
        assert item.home is made
        forth.append(item)
        item = item.after
    back, item = list[Slot](), made.last
    while item is not None:
        back.append(item)
        item = item.before
    assert back[::-1] == forth
    return "".join(each.key for each in forth)


def loose(item: Slot) -> bool:
    return (item.home, item.before, item.after) == (None, None, None)


def test_a_queue_keeps_the_order_of_arrival():
    made, _ = queued(4)
    assert chained(made) == "0123"


@pytest.mark.parametrize("order", ["0123", "3210", "1203", "2130"])
def test_items_are_taken_out_anywhere(order: str):
    made, slots = queued(4)
    left = "0123"
    for key in order:
        made.remove(slots[int(key)])
        left = left.replace(key, "")
        assert chained(made) == left
        assert loose(slots[int(key)])
    made.append(slots[0])
    assert chained(made) == "0"


@pytest.mark.parametrize("place", range(3))
def test_another_item_takes_the_place(place: int):
    made, slots = queued(3)
    made.replace(slots[place], slot("x"))
    assert chained(made) == "012".replace(str(place), "x")
    assert loose(slots[place])


def test_the_only_item_is_replaced():
    made, slots = queued(1)
    made.replace(slots[0], slot("x"))
    assert chained(made) == "x"


def test_a_cleared_queue_leaves_nothing_to_the_garbage_collector():
    gc.disable()
    gc.freeze()  # what is there already, from whatever test
    try:
        made, slots = queued(1_000)
        made.clear()
        del slots
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()
    assert made.first is made.last is None


def test_a_long_chain_that_nobody_cut_is_freed_without_recursion():
    made, slots = queued(200_000)
    del made, slots
    assert gc.collect() >= 200_000


def test_items_leave_in_order_of_their_worth():
    made, _ = ranks(8.0, 1.0, 4.0, 2.0)
    assert popped(made, 4) == "1320"


def test_items_of_one_worth_leave_in_order_of_arrival():
    made, _ = ranks(1.0, 1.0, 1.0)
    assert popped(made, 3) == "012"


def test_what_is_added_later_is_due_later():
    made, _ = ranks(4.0)
    made.clock = 3.5
    made.add(slot("later"), 1.0)
    assert popped(made, 1) == "0"


def test_the_head_of_a_queue_decides_when_it_is_due():
    made, _ = ranks(1.0, 4.0)
    made.clock = 5.0
    made.add(slot("later"), 1.0)
    assert popped(made, 3) == "01later"


def test_items_that_were_taken_out_do_not_come():
    made, slots = ranks(1.0, 1.0, 4.0, 2.0)
    for each in (slots[0], slots[3]):
        assert each.home is not None
        made.remove(each.home, each)
    assert popped(made, 2) == "12"


def test_nothing_comes_of_nothing():
    made, _ = ranks(1.0, 8.0)
    assert popped(made, 2) == "01"
    assert made.pop() is None


def test_cleared_ranks_begin_anew():
    made, slots = ranks(1.0, 8.0)
    made.clock = 5.0
    made.clear()
    assert made.pop() is None
    assert loose(slots[1])
    made.add(slots[1], 8.0)
    assert (slots[1].due, made.pop()) == (8.0, slots[1])


def test_worths_within_a_factor_of_two_may_change_places_and_no_others():
    chance = random.Random(3)
    worths = [chance.uniform(0.001, 1000.0) for _ in range(500)]
    made, _ = ranks(*worths)
    order = [worths[int(item.key)] for _ in worths if (item := made.pop())]
    assert len(order) == len(worths)
    highest = 0.0
    for worth in order:
        highest = max(highest, worth)
        assert worth > highest / 2


def test_ghosts_are_bounded():
    ghosts = Ghosts()
    for number in range(1_000):
        ghosts.add(str(number), 1, room=100)
    known = [number for number in range(1_000) if ghosts.take(str(number))]
    assert known == list(range(known[0], 1_000))
    assert 100 * GENERATION <= len(known) <= 200 * GENERATION + 1


def test_a_ghost_is_taken_once_with_its_number():
    ghosts = Ghosts()
    ghosts.add("a", -3, room=10)
    assert (ghosts.take("a"), ghosts.take("a")) == (-3, 0)
