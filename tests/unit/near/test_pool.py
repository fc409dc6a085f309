"""Who stays and who leaves under one rule."""

import random

from nearcache.near.pool import MAX_READS, MAX_ROUNDS, Pool, Rule
from nearcache.near.slot import Slot
from nearcache.near.tally import Tally
from tests.unit.near.helpers import FAR

TENTH = Rule(share=0.1, reads=2, power=0.5)
WORTH = Rule(share=0.0, reads=1, power=1.0)


def slot(key: str, size: int = 1, deadline: float = FAR) -> Slot:
    made = Slot(key, size, Tally())
    made.serve(key, None, deadline, None, 0)
    return made


def filled(pool: Pool[Slot], keys: str) -> dict[str, Slot]:
    slots = {key: slot(key) for key in keys}
    for each in slots.values():
        pool.insert(each)
    return slots


def victims(pool: Pool[Slot], count: int, now: float = 0.0) -> str:
    return "".join(left.key for _ in range(count) if (left := pool.victim(now)))


def warm(rule: Rule = TENTH) -> Pool[Slot]:
    pool: Pool[Slot] = Pool(10, False, rule)
    pool.insert(slot("first"))
    assert pool.victim(0.0) is not None
    return pool


def test_an_empty_pool_has_no_victim():
    assert Pool[Slot](10, False, TENTH).victim(0.0) is None


def test_entries_never_read_leave_in_order_of_arrival():
    pool = warm()
    filled(pool, "abc")
    assert victims(pool, 4) == "abc"


def test_an_entry_read_twice_is_ranked_and_one_read_once_leaves():
    pool = warm()
    slots = filled(pool, "abc")
    slots["a"].freq += 2
    slots["b"].freq += 1
    assert victims(pool, 2) == "bc"
    assert victims(pool, 1) == "a"


def test_a_key_that_left_the_small_queue_lately_is_ranked_at_once():
    pool = warm()
    filled(pool, "abc")
    assert victims(pool, 1) == "a"
    filled(pool, "ad")
    assert victims(pool, 4) == "bcda"


def test_a_key_that_left_the_ranks_returns_to_the_small_queue_with_its_reads():
    pool = warm(WORTH)
    filled(pool, "abc")
    assert victims(pool, 1) == "a"
    pool.follow(TENTH)
    again = filled(pool, "ad")
    assert again["a"].reads == 2
    assert victims(pool, 4) == "adbc"


def test_a_key_taken_out_by_others_is_not_remembered():
    pool = warm()
    slots = filled(pool, "abc")
    pool.remove(slots["a"])
    filled(pool, "a")
    assert victims(pool, 3) == "bca"


def test_the_entry_of_least_worth_leaves_and_time_makes_up_for_reads():
    pool = warm(WORTH)
    slots = filled(pool, "abc")
    slots["a"].freq += 5
    assert victims(pool, 2) == "bc"
    for number in range(10):
        filled(pool, chr(ord("k") + number))
        if victims(pool, 1) == "a":
            break
    assert number == 5


def test_what_is_large_is_worth_less_where_bytes_are_limited():
    pool: Pool[Slot] = Pool(1_000, True, WORTH)
    for key, size in (("small", 10), ("large", 500), ("middle", 100)):
        pool.insert(slot(key, size))
    assert [left.key for _ in range(3) if (left := pool.victim(0.0))] == ["large", "middle", "small"]
    assert pool.weight == 0


def test_the_small_queue_has_its_share_of_the_room():
    pool: Pool[Slot] = Pool(100, False, TENTH)
    for number in range(100):
        pool.insert(slot(f"{number}"))
    left = [pool.victim(0.0) for _ in range(10)]
    assert [each.key for each in left if each] == [str(number) for number in range(10)]


def test_another_rule_holds_from_the_next_victim_on():
    pool: Pool[Slot] = Pool(10, False, TENTH)
    filled(pool, "abcdefghij")  # a is in the small queue, the others were ranked while it was full
    pool.follow(Rule(share=0.5, reads=2, power=0.5))
    assert victims(pool, 1) == "b"


def test_an_expired_entry_leaves_however_often_it_was_read():
    pool = warm()
    pool.insert(slot("a", deadline=5.0))
    pool.insert(slot("b"))
    assert victims(pool, 1, now=5.0) == "a"


def test_an_expired_ranked_entry_leaves():
    pool: Pool[Slot] = Pool(10, False, WORTH)
    pool.insert(slot("a", deadline=5.0))
    slots = filled(pool, "b")
    slots["b"].freq = 1
    assert victims(pool, 1, now=5.0) == "a"


def test_a_replacement_has_the_place_and_the_reads_of_the_old_one():
    pool = warm()
    slots = filled(pool, "abc")
    slots["a"].freq += 2
    new = slot("a", size=7)
    pool.replace(slots["a"], new)
    assert (new.freq, new.reads) == (2, slots["a"].reads)
    assert victims(pool, 3) == "bca"


def test_removing_an_entry_that_was_replaced_changes_nothing():
    pool = warm()
    slots = filled(pool, "a")
    pool.replace(slots["a"], slot("a"))
    pool.remove(slots["a"])
    assert victims(pool, 2) == "a"


def test_the_work_for_one_victim_is_bounded():
    pool: Pool[Slot] = Pool(3 * MAX_ROUNDS, False, WORTH)
    hot = [slot(str(number)) for number in range(3 * MAX_ROUNDS)]
    for each in hot:
        pool.insert(each)
        each.freq += 1
    assert pool.victim(0.0) is not None
    assert sum(each.freq > 0 for each in hot) >= 2 * MAX_ROUNDS - 1


def test_reads_without_end_do_not_keep_an_entry_for_ever():
    pool = warm(WORTH)
    slots = filled(pool, "a")
    slots["a"].freq += 10**9
    for number in range(MAX_READS + 10):
        pool.insert(slot(str(number)))
        if victims(pool, 1) == "a":
            break
    assert MAX_READS - 10 < number < MAX_READS + 9


def test_weight_and_count_are_those_of_what_is_there_whatever_happens():
    chance = random.Random(5)
    for by_size in (False, True):
        pool: Pool[Slot] = Pool(300, by_size, TENTH)
        there: dict[str, Slot] = {}
        for _ in range(5_000):
            key, size = str(chance.randrange(60)), chance.randrange(1, 30)
            match chance.randrange(5):
                case 0 if key in there:
                    pool.remove(there.pop(key))
                case 1 if key in there:
                    new = slot(key, size)
                    pool.replace(there[key], new)
                    there[key] = new
                case 2 if victim := pool.victim(0.0):
                    assert there.pop(victim.key) is victim
                case _ if key in there:
                    there[key].freq += 1
                case _:
                    there[key] = slot(key, size)
                    pool.insert(there[key])
            assert pool.count == len(there)
            assert pool.weight == (sum(each.size for each in there.values()) if by_size else len(there))
        victims(pool, 100)
        assert (pool.count, pool.weight, pool._small_weight) == (0, 0, 0)
