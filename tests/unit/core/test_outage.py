"""Who may ask an engine that does not answer: one after the other, after pauses that grow."""

import threading

from nearcache._core import outage as outage_module
from nearcache._core.outage import FIRST_PAUSE, LONGEST_PAUSE, Outage
from tests.promises.helpers import broken, noticed


def an_outage(now: float = 0.0) -> Outage:
    return Outage(now, "connection refused", patience=7.0)


def test_the_next_call_is_let_through_at_once_and_no_other_before_it_has_ended():
    outage = an_outage()
    assert outage.lets_through(0.0)
    assert not any(outage.lets_through(now) for now in (0.0, 1.0, 6.9))
    outage.failed(6.9)
    assert not outage.lets_through(6.9)


def test_pauses_grow_up_to_the_longest_and_are_not_in_step():
    outage, now, pauses = an_outage(), 0.0, list[float]()
    for _ in range(12):
        assert outage.lets_through(now)
        outage.failed(now)
        due = next(step / 1_000 for step in range(10_000) if outage.lets_through(now + step / 1_000))
        pauses.append(due)
        outage.abandoned(now := now + due)
    assert FIRST_PAUSE / 2 <= pauses[0] <= FIRST_PAUSE + 0.001
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE + 0.001 for pause in pauses[6:])
    assert len(set(pauses[6:])) > 1


def test_a_call_that_learned_nothing_makes_room_for_the_next():
    outage = an_outage()
    assert outage.lets_through(0.0)
    outage.abandoned(0.1)
    assert outage.lets_through(0.1)


def test_a_call_that_is_never_heard_of_again_is_given_up():
    outage = an_outage()
    assert outage.lets_through(5.0)
    assert not outage.lets_through(12.0)
    assert not outage.lets_through(12.1), "whoever finds out is not the one"
    assert outage.lets_through(12.1)


def test_it_tells_whether_anybody_may_ask_and_lets_nobody_through_by_that():
    outage = an_outage()
    assert not outage.spares(0.0)
    assert outage.lets_through(0.0)
    assert outage.spares(1.0)
    assert not outage.spares(7.1), "the call that was let through was never heard of again"
    outage.failed(8.0)
    assert outage.spares(8.0)
    assert not outage.spares(8.0 + FIRST_PAUSE)
    assert outage.lets_through(8.0 + FIRST_PAUSE)


def test_it_says_since_when_and_when_the_engine_is_asked_next():
    outage = an_outage(100.0)
    assert outage.lets_through(101.0)
    assert outage.described(102.5) == "no answer for 2.5 s (connection refused); somebody is asking it now"
    outage.failed(103.0)
    assert outage.described(103.0).startswith("no answer for 3.0 s (connection refused); it is asked again in 0.")


def one_of_many_is_let_through() -> None:
    for _ in range(20):
        outage, together, through = an_outage(), threading.Barrier(8), list[bool]()

        def ask(outage=outage, together=together, through=through) -> None:
            together.wait(10)
            through.append(outage.lets_through(1.0))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert through.count(True) == 1


def test_one_of_many_threads_is_let_through():
    one_of_many_is_let_through()


def test_a_turn_that_many_may_take_is_noticed():
    with broken(outage_module._Turn, "take", lambda _turn, _now: None), noticed():
        one_of_many_is_let_through()
