"""The record of a lock in an engine without scripts, as others may have written it."""

import math

import msgspec
import pytest

from nearcache.backends.registers.locked import Locked, locked_in

HONEST = [7, 1, [["me", 5, 10.0]], [["you", 6, 1]]]


def test_what_was_stored_comes_back() -> None:
    found = locked_in(msgspec.msgpack.encode(HONEST))
    assert msgspec.msgpack.decode(found.bytes()) == HONEST


@pytest.mark.parametrize("life", [-1.0, math.nan, math.inf, 1e300])
def test_a_life_that_no_lock_can_have_makes_no_record(life: float) -> None:
    assert locked_in(msgspec.msgpack.encode([7, 1, [["me", 5, life]], []])) == Locked()


@pytest.mark.parametrize("most", [0, -1, 1.5, "2"])
def test_a_number_of_holders_that_no_lock_can_have_makes_no_record(most: object) -> None:
    assert locked_in(msgspec.msgpack.encode([7, most, [], []])) == Locked()
    assert locked_in(msgspec.msgpack.encode([7, 1, [], [["you", 6, most]]])) == Locked()


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\xc0", b"\x91" * 5_000, b"a lock"])
def test_what_is_no_record_at_all_is_a_lock_that_nobody_holds(raw: bytes) -> None:
    assert locked_in(raw) == Locked()
