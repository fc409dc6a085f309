"""Calls that cross each other take turns."""

import asyncio
import time
from typing import Any

import pytest

from nearcache.backends.base import NotServing
from nearcache.backends.registers import turns as module
from nearcache.backends.registers.turns import AwaitingTurns, BlockingTurns, turns
from tests.integration.redis.helpers import drive
from tests.promises.helpers import Crowd, broken, eventually, noticed, values

PATIENCE = 0.01


def test_what_succeeds_at_once_takes_no_turn():
    told = list[bool]()

    async def take(first: bool) -> str:
        told.append(first)
        return "done"

    async def no_turn(*_: Any) -> Any:
        raise AssertionError("it lines up")

    for lines in turns(PATIENCE).values():
        with broken(type(lines), "_line_up", no_turn):
            assert drive(lines.until_done("t:1", take)) == "done"
    assert told == [True, True]


@pytest.mark.parametrize("kind", [BlockingTurns, AwaitingTurns])
def test_what_is_always_crossed_comes_to_an_end_and_its_turn_too(kind: Any):
    lines, told = kind(1.0), list[bool]()

    async def take(first: bool) -> None:
        told.append(first)

    async def done(_first: bool) -> str:
        return "done"

    async def both() -> str:
        with broken(module, "TRIES", 3), pytest.raises(NotServing, match="others change it all the time"):
            await lines.until_done("t:1", take)
        return str(await lines.until_done("t:1", done))

    assert asyncio.run(both()) == "done"
    assert told == [True, False, False, False]
    assert asyncio.run(lines._line_up(hash("t:1") % module.LINES)) is not None


def cross_each_other(tries: list[int]) -> None:
    """Let threads change one record, each of whose changes takes a moment; nobody crosses who has the turn."""
    lines, record = BlockingTurns(20.0), [0]

    async def take(_first: bool) -> bool | None:
        tries.append(1)
        seen = record[0]
        time.sleep(0.0005)
        if record[0] != seen:
            return None
        record[0] += 1
        return True

    values(Crowd().threads(20, lambda: drive(lines.until_done("t:1", take))).start().finish())
    assert len(tries) <= 80, "they go on crossing each other"


def test_threads_go_one_after_the_other():
    cross_each_other([])


def test_threads_that_do_not_are_noticed():
    async def at_once(*_: Any) -> Any:
        return lambda: None

    with broken(BlockingTurns, "_line_up", at_once), broken(BlockingTurns, "_pause", at_once), noticed("crossing"):
        cross_each_other([])


def test_nobody_waits_for_a_turn_for_ever_and_a_forked_child_finds_nobody():
    """An interrupt may come just when the turn was taken: then nobody leaves."""
    lines, taken = BlockingTurns(PATIENCE), list[Any]()
    values(Crowd().threads(1, lambda: taken.append(drive(lines._line_up(0)))).start().finish())
    eventually(lambda: taken, "a thread has it")
    assert drive(lines._line_up(0)) is None
    lines.after_fork()
    assert drive(lines._line_up(0)) is not None


async def test_no_task_waits_for_ever_either():
    lines = AwaitingTurns(PATIENCE)
    leave = await lines._line_up(0)
    assert leave is not None
    assert await lines._line_up(0) is None
    assert await lines._line_up(1) is not None
    leave()
    assert await lines._line_up(0) is not None
