"""What came of a piece of work."""

import traceback

import pytest

from nearcache._core.outcome import Outcome


def test_the_traceback_of_a_shared_error_does_not_grow_with_those_who_get_it():
    def fail() -> Outcome[int]:
        try:
            raise ValueError("once")
        except ValueError as error:
            return Outcome(error=error)

    outcome = fail()
    lengths: set[int] = set()
    for _ in range(10):
        with pytest.raises(ValueError, match="once") as raised:
            outcome.copied().get()
        lengths.add(len(traceback.extract_tb(raised.value.__traceback__)))
        assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "fail"
    assert len(lengths) == 1
