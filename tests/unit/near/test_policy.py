"""S3-FIFO: who stays and who leaves."""

from nearcache.near.policy import MAX_ROUNDS, Ghosts, S3Fifo
from nearcache.near.slot import Slot, Tally
from tests.unit.near.helpers import FAR


def slot(key: str, size: int = 1, freq: int = 0, deadline: float = FAR) -> Slot:
    made = Slot(key, size, Tally())
    made.serve(key, None, deadline, None)
    made.freq = freq
    return made


def filled(policy: S3Fifo, keys: str, freq: int = 0) -> dict[str, Slot]:
    slots = {key: slot(key, freq=freq) for key in keys}
    for each in slots.values():
        policy.insert(each)
    return slots


def victims(policy: S3Fifo, count: int, now: float = 0.0) -> str:
    return "".join(left.key for _ in range(count) if (left := policy.victim(now)))


def warm() -> S3Fifo:
    policy = S3Fifo(10)
    assert policy.victim(0.0) is None
    return policy


def test_an_empty_policy_has_no_victim():
    assert S3Fifo(10).victim(0.0) is None


def test_entries_never_read_leave_in_order_of_arrival():
    policy = warm()
    filled(policy, "abc")
    assert victims(policy, 4) == "abc"


def test_an_entry_read_twice_moves_to_the_main_queue_and_one_read_once_leaves():
    policy = warm()
    slots = filled(policy, "abc")
    slots["a"].freq, slots["b"].freq = 2, 1
    assert victims(policy, 2) == "bc"
    assert victims(policy, 1) == "a"


def test_a_key_that_left_lately_returns_to_the_main_queue():
    policy = warm()
    filled(policy, "abc")
    assert victims(policy, 1) == "a"
    filled(policy, "ad")
    assert victims(policy, 4) == "bcda"


def test_a_key_taken_out_by_others_is_not_remembered():
    policy = warm()
    slots = filled(policy, "abc")
    policy.remove(slots["a"])
    filled(policy, "a")
    assert victims(policy, 3) == "bca"


def test_an_entry_of_the_main_queue_goes_round_once_per_read():
    policy = S3Fifo(0)  # before anybody had to leave, whoever finds the small queue full enters the main queue
    slots = filled(policy, "abc")
    slots["a"].freq = 2
    slots["b"].freq = 1
    assert victims(policy, 3) == "cba"


def test_the_small_queue_has_a_tenth_of_the_room():
    policy = S3Fifo(100)
    for number in range(100):
        policy.insert(slot(f"{number}"))
    left = [policy.victim(0.0) for _ in range(10)]
    assert [each.key for each in left if each] == [str(number) for number in range(10)]


def test_size_is_the_weight_where_bytes_are_limited():
    policy = S3Fifo(100, by_size=True)
    policy.insert(slot("first", size=60))
    for number in range(4):
        policy.insert(slot(f"{number}", size=10))
    assert victims(policy, 1) == "first"


def test_an_expired_entry_leaves_however_often_it_was_read():
    policy = warm()
    policy.insert(slot("a", freq=3, deadline=5.0))
    policy.insert(slot("b", freq=0))
    assert victims(policy, 1, now=5.0) == "a"


def test_an_expired_entry_of_the_main_queue_leaves_and_its_key_is_remembered():
    policy = S3Fifo(20)
    filled(policy, "xy")  # the small queue is full now, and the others enter the main queue
    policy.insert(slot("a", freq=3, deadline=5.0))
    filled(policy, "bc")
    assert victims(policy, 3, now=5.0) == "xya"
    filled(policy, "za")
    assert victims(policy, 4, now=5.0) == "zbca"


def test_a_replacement_has_the_place_and_the_reads_of_the_old_one():
    policy = warm()
    slots = filled(policy, "abc", freq=1)
    slots["a"].freq = 2
    new = slot("a", size=7)
    policy.replace(slots["a"], new)
    assert new.freq == 2
    assert victims(policy, 3) == "bca"


def test_removing_a_slot_that_was_replaced_changes_nothing():
    policy = warm()
    slots = filled(policy, "a")
    policy.replace(slots["a"], slot("a"))
    policy.remove(slots["a"])
    assert victims(policy, 2) == "a"


def test_clear_forgets_remembered_keys_too():
    policy = warm()
    filled(policy, "ab")
    victims(policy, 2)
    policy.clear()
    assert policy.victim(0.0) is None
    filled(policy, "abc")
    assert victims(policy, 3) == "abc"


def test_the_work_for_one_eviction_is_bounded():
    policy = S3Fifo(0)
    hot = [slot(str(number), freq=3) for number in range(3 * MAX_ROUNDS)]
    for each in hot:
        policy.insert(each)
    assert policy.victim(0.0) is not None
    assert sum(each.freq == 3 for each in hot) >= 2 * MAX_ROUNDS - 1


def test_ghosts_are_bounded():
    ghosts = Ghosts()
    for number in range(100):
        ghosts.add(str(number), room=10)
    assert [number for number in range(100) if ghosts.take(str(number))] == list(range(90, 100))


def test_a_ghost_is_taken_once():
    ghosts = Ghosts()
    ghosts.add("a", room=10)
    assert ghosts.take("a")
    assert not ghosts.take("a")
