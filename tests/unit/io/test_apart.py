"""Threads of loaders: each loader has its number of them, whatever interrupted the start of one."""

import threading
from functools import partial

from nearcache._io.apart import MOST_THREADS, Apart
from tests.promises.helpers import SignalAt, eventually, interrupted


def test_a_loader_has_so_many_threads_and_all_of_its_work_is_done() -> None:
    apart, gate, running, done = Apart(), threading.Event(), list[int](), list[int]()

    def work(number: int) -> None:
        running.append(number)
        gate.wait()
        done.append(number)

    for number in range(2 * MOST_THREADS):
        apart.run("a loader", partial(work, number))
    eventually(lambda: len(running) == MOST_THREADS, "all threads are taken")
    assert apart.full("a loader")
    assert not apart.full("another")
    gate.set()
    eventually(lambda: sorted(done) == list(range(2 * MOST_THREADS)), "all is done")
    eventually(lambda: not apart._bulkheads, "all threads have ended")


@interrupted
def test_a_start_that_was_interrupted_anywhere_takes_no_thread_from_a_loader() -> None:
    apart, done = Apart(), list[int]()
    for place in range(1, 1000):
        run = partial(apart.run, "a loader", partial(done.append, place))
        if not (where := SignalAt(place, threads=True).run(run)):
            assert place > 5
            break
        apart.run("a loader", partial(done.append, -place))
        eventually(lambda: -place in done, f"work is done though a start was interrupted at {where}")  # noqa: B023
        eventually(lambda: not apart._bulkheads, f"no thread is counted that was interrupted at {where}")
    else:
        raise AssertionError("the start never ended")
