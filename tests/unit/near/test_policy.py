"""The policy that learns its rule."""

import gc
import random
import sys
from collections.abc import Iterable, Iterator
from types import FrameType

import pytest

from nearcache.near.policy import RULES, Learning
from nearcache.near.pool import Pool, Rule
from nearcache.near.slot import Slot
from nearcache.near.tally import Tally
from nearcache.near.trials import Trials
from tests.unit.near.helpers import FAR


def slot(key: str, size: int = 1) -> Slot:
    made = Slot(key, size, Tally())
    made.serve(key, None, FAR, None, 0)
    return made


def misses(policy: Learning | Pool[Slot], capacity: int, keys: Iterable[str], size: int = 1) -> int:
    there: dict[str, Slot] = {}
    missed = 0
    for key in keys:
        if key in there:
            there[key].freq += 1
            continue
        missed += 1
        if len(there) >= capacity and (victim := policy.victim(0.0)):
            del there[victim.key]
        there[key] = slot(key, size)
        policy.insert(there[key])
    return missed


def filled(policy: Learning, count: int) -> None:
    for number in range(count):
        policy.insert(slot(str(number)))


def drifting(count: int) -> Iterator[str]:
    """Yield keys of which the newest are read most."""
    chance = random.Random(1)
    return (str(number // 3 - int(chance.paretovariate(0.5))) for number in range(count))


def round_and_round(count: int) -> Iterator[str]:
    """Yield keys of which most go round and do not fit, and some are drawn."""
    chance = random.Random(1)
    return (f"{600 * chance.random() ** 2:.0f}" if chance.random() < 0.3 else f"r{n % 230}" for n in range(count))


def test_nearly_all_of_what_goes_round_is_kept_where_nearly_all_has_room():
    rounds, there = 60, 800
    missed = misses(Learning(there), there, (f"{n % 1_000}" for n in range(1_000 * rounds)))
    assert missed < 1_000 * rounds * 0.3


def test_without_a_rule_that_forgets_keys_that_goes_wrong():
    rounds, there = 60, 800
    recalling = Pool[Slot](there, False, Rule(0.01, 1, 0.75))
    assert misses(recalling, there, (f"{n % 1_000}" for n in range(1_000 * rounds))) > 1_000 * rounds * 0.3


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 600])
@pytest.mark.parametrize("keys", [drifting, round_and_round])
def test_it_misses_about_as_little_as_the_best_of_its_rules(keys, size):
    fixed = [misses(Pool(200, False, rule), 200, keys(40_000)) for rule in RULES]
    learned = misses(Learning(200), 200, keys(40_000), size)
    assert learned < fixed[0]
    assert learned < min(fixed) * 1.05


def test_an_empty_policy_has_no_victim():
    assert Learning(10).victim(0.0) is None


def test_the_sample_is_the_same_in_every_process():
    trials = Trials(RULES, 1_000, False, 1_000)
    drawn = [number for number in range(100) if trials.draws(f"users:{number}")]
    assert drawn == [23, 31, 34, 38, 66, 68, 91, 92, 93, 95]


@pytest.mark.parametrize("form", ["{}", "users:{}", "{:08}", "{:08x}", "orders:{}:lines"])
def test_a_sample_of_keys_that_are_alike_is_as_large_as_it_should_be(form):
    trials = Trials(RULES, 1_000, False, 1_000)
    share = 3 / 1_000**0.5
    drawn = sum(trials.draws(form.format(number)) for number in range(2_000))
    assert drawn == pytest.approx(2_000 * share, rel=0.2)


@pytest.mark.parametrize("by_size", [False, True])
def test_nothing_is_left_to_the_garbage_collector(by_size):
    gc.disable()
    gc.freeze()  # what is there already, from whatever test
    try:
        policy = Learning(40, by_size)
        there: dict[str, Slot] = {}
        victim: Slot | None = None
        for number in range(3_000):
            key = str(number * number % 97)
            if key not in there:
                if len(there) >= 40 and (victim := policy.victim(0.0)):
                    del there[victim.key]
                there[key] = slot(key)
                policy.insert(there[key])
            elif number % 3:
                there[key].freq += 1
            else:
                policy.remove(there.pop(key))
        victim = None
        assert policy.learns
        assert gc.collect() == 0
        policy.clear()
        there.clear()
        assert gc.collect() == 0
        filled(policy, 100)
        del policy
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()


def test_a_replacement_of_what_just_left_is_taken_in():
    policy = Learning(10)
    old, new = slot("a"), slot("a")
    policy.insert(old)
    assert policy.victim(0.0) is old
    policy.replace(old, new)
    assert policy.victim(0.0) is new
    policy.remove(new)
    assert policy.victim(0.0) is None


def test_clear_forgets_remembered_keys_too():
    policy = Learning(10)
    for number in range(30):
        policy.insert(slot(str(number)))
        if number >= 10:
            assert policy.victim(0.0)
    policy.clear()
    assert policy.victim(0.0) is None
    returning = [slot(str(number)) for number in range(30)]
    for each in returning:
        policy.insert(each)
    assert {each.reads for each in returning} == {1}


def test_clear_forgets_what_was_learned():
    policy = Learning(200)
    first = misses(policy, 200, round_and_round(20_000))
    policy.clear()
    assert misses(policy, 200, round_and_round(20_000)) == first


def test_reads_found_by_a_look_count_for_a_copy_that_missed_the_first():
    trials = Trials(RULES, 64, False, 64)
    first, others = slot("first"), [slot(str(number)) for number in range(20)]
    for each in (first, *others):
        trials.missed(each)
    probe = trials.samples["first"].probes[0]
    homes = [probe.home]
    first.freq += 3
    trials.best(0)
    homes.append(probe.home)
    assert [home is None for home in homes] == [True, False]
    assert probe.freq == 2


def test_without_a_limit_nothing_is_tried():
    policy = Learning(float("inf"))
    for number in range(1_000):
        policy.insert(slot(str(number)))
    assert not policy.learns


def test_a_replaced_slot_goes_on_being_counted():
    policy, there = Learning(40), dict[str, Slot]()
    for number in range(2_000):
        key = str(number % 60)
        if key in there:
            there[key].freq += 1
            new = slot(key)
            policy.replace(there[key], new)
            assert new.freq == there[key].freq
            there[key] = new
            continue
        if len(there) >= 40:
            victim = policy.victim(0.0)
            assert victim is not None
            assert there.pop(victim.key) is victim
        there[key] = slot(key)
        policy.insert(there[key])
    assert policy.learns


@pytest.mark.parametrize("by_size", [False, True])
def test_samples_are_forgotten_when_nobody_holds_them(by_size):
    """Removes half of what comes in by other means, and asks for victims for the rest."""
    trials = Trials(RULES, 64, by_size, 64)
    there: dict[str, Slot] = {}
    for number in range(6_000):
        key = str(number * number % 997)
        if key in there:
            there[key].freq += 1
        else:
            there[key] = slot(key)
            trials.missed(there[key])
        if len(there) > 64:
            oldest = there.pop(next(iter(there)))
            if number % 2:
                trials.left(trials.samples[oldest.key])
            else:
                trials.removed(oldest)
        if not number % 50:
            trials.best(0)
    held_by_copies = len(RULES) * 64
    assert len(trials.samples) <= held_by_copies + 64
    for each in there.values():
        trials.removed(each)
    assert len(trials.samples) <= held_by_copies


@pytest.mark.parametrize("by_size", [False, True])
def test_a_miss_takes_no_more_steps_the_more_entries_there_are(by_size):
    few, many = (calls_per_miss(entries, by_size) for entries in (1_000, 20_000))
    assert many <= few


def calls_per_miss(entries: int, by_size: bool) -> float:
    policy = Learning(entries, by_size)
    counted = count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    there: dict[str, Slot] = {}
    chance = random.Random(1)
    for number in range(entries * 4):
        key = str(int(entries * 4 * chance.random() ** 2))
        if key in there:
            there[key].freq += 1
            continue
        fresh = slot(key)
        sys.setprofile(profile if number > entries * 3 else None)
        if len(there) >= entries and (victim := policy.victim(0.0)):
            del there[victim.key]
        policy.insert(fresh)
        sys.setprofile(None)
        there[key] = fresh
        count += number > entries * 3
    return counted / count
