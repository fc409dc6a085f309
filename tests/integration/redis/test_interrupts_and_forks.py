"""Blocking connections when a signal interrupts a call, and when the process forks."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import pytest

from nearcache.backends.redis import RedisBackend
from nearcache.backends.transport.blocking import BlockingLink
from tests.integration.redis.helpers import (
    KEYS,
    check,
    clients,
    drive,
    eventually,
    fill,
    in_child,
    made,
    reap,
    run_threads,
)
from tests.measuring import is_measuring
from tests.servers import RedisServer


def link_of(backend: RedisBackend) -> BlockingLink:
    """The connections behind a backend."""
    link = backend._link
    assert isinstance(link, BlockingLink)
    return link


def check_all(backend: RedisBackend) -> None:
    """Read every key."""
    for key in KEYS:
        drive(check(backend, key))


class Interrupted(BaseException):
    """What the signal handler raises, like KeyboardInterrupt or a soft time limit."""


class Interrupter:
    """Sends a signal to the main thread at random moments; its handler raises while armed."""

    def __init__(self, seed: int) -> None:
        self.armed = False
        self._draw = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGUSR1, self._handle)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        signal.signal(signal.SIGUSR1, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.armed and not is_measuring(frame):
            self.armed = False
            raise Interrupted

    def _run(self) -> None:
        while not self._stop.wait(self._draw.uniform(0, 0.0008)):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


# An interrupt between making a socket and noting it leaves the closing to the interpreter, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_call_never_leaves_its_reply_to_another(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_max=2, pool_timeout=1.0, timeout=5.0)
    drive(fill(backend))
    draw = random.Random(7)
    interrupted = 0
    with Interrupter(7) as interrupter:
        until = time.monotonic() + 3
        while interrupted < 400 and time.monotonic() < until:
            key = draw.choice(KEYS)
            try:
                interrupter.armed = True
                drive(check(backend, key))
                interrupter.armed = False
            except Interrupted:
                interrupted += 1
    assert interrupted > 50
    assert len(link_of(backend)._pool) <= 2
    run_threads(lambda number: check_all(backend), 4)
    drive(backend.close())


def call_inside(step: int, call: Callable[[], None], inner: Callable[[], None]) -> bool:
    """Make a call, and another in the middle of it, after so many lines of the pool; tell whether it came to that."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        nonlocal lines
        if frame.f_code.co_qualname.startswith("Pool."):
            lines += event == "line"
            if event == "line" and lines == step:
                inner()
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines >= step


def test_a_handler_that_interrupts_the_pool_anywhere_can_make_calls_itself(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_max=2, pool_timeout=1.0)
    drive(fill(backend))
    steps = 0

    def call() -> None:
        drive(check(backend, KEYS[0]))

    def at_every_step() -> None:
        nonlocal steps
        while call_inside(steps + 1, call, call):
            steps += 1
            if steps % 2:
                drive(backend.close())

    thread = threading.Thread(target=at_every_step, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive(), f"a call inside the step {steps + 1} of the pool never came back"
    assert steps > 5
    assert len(link_of(backend)._pool) <= 2
    drive(backend.close())


def test_a_forked_child_opens_its_own_connections_and_leaves_the_parents_alone(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_min=3)
    drive(backend.open())
    drive(fill(backend))
    before = clients(own_server)

    def child() -> None:
        assert len(link_of(backend)._pool) == 0
        check_all(backend)
        assert len(clients(own_server)) == 4
        drive(backend.close())

    assert reap(in_child(child)) == 0
    eventually(lambda: clients(own_server) == before, "only the parent's connections are left")
    check_all(backend)
    assert clients(own_server) == before
    drive(backend.close())


def test_forks_in_the_middle_of_calls_of_other_threads_mix_nothing_up(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_max=4, timeout=10.0)
    drive(fill(backend))
    stop = threading.Event()

    def work(number: int) -> None:
        draw = random.Random(number)
        while not stop.is_set():
            drive(check(backend, draw.choice(KEYS)))

    def fork_some() -> None:
        children = [in_child(lambda: check_all(backend)) for _ in range(8)]
        codes = [reap(child) for child in children]
        stop.set()
        assert codes == [0] * 8

    run_threads(lambda number: work(number) if number else fork_some(), 4)
    assert len(link_of(backend)._pool) <= 4
    drive(backend.close())


def test_a_closed_connection_of_the_parent_is_closed_for_the_server_although_a_child_lives(own_server: RedisServer):
    backend = made(own_server.unix_url, "sync", "t", pool_min=2)
    drive(backend.open())
    wake_up, tell = os.pipe()
    pid = in_child(lambda: os.read(wake_up, 1))
    drive(backend.close())
    try:
        eventually(lambda: not clients(own_server), "the parent's connections end")
    finally:
        os.write(tell, b"x")
        assert reap(pid) == 0
        os.close(wake_up)
        os.close(tell)
