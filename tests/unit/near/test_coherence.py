"""Near values are served as long as a proof is young, and what may have changed without a word is dropped."""

import math

import pytest

from nearcache._core.missing import MISS
from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flights
from nearcache.near.store import Limit, Store
from nearcache.testing import FakeClock

FAR = 1e9


class Tier:
    """A near tier, and what keeps it coherent."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.near = Store(Limit(), self.clock)
        self.coherence = Coherence(self.near, Flights(), self.clock, 1.0, wanted=True)
        self.sought = 0
        self.coherence.seek = self.seek

    def seek(self) -> None:
        self.sought += 1

    def keep(self, key: str = "a:1", fresh: float = FAR) -> None:
        """Keep a value that is asked for now."""
        deadline = self.coherence.deadline(self.clock(), fresh)
        self.near.keep(key, "value", None, deadline, 10, self.near.stamp(key))

    def serves(self, key: str = "a:1") -> bool:
        return self.near.lookup(key) is not MISS


@pytest.fixture
def tier() -> Tier:
    return Tier()


def test_without_a_session_values_live_for_the_budget_and_one_is_sought(tier: Tier) -> None:
    tier.keep()
    tier.clock.advance(0.999)
    assert tier.serves()
    tier.clock.advance(0.001)
    assert not tier.serves()
    assert tier.sought == 1
    assert not tier.coherence.tracked
    assert tier.coherence.age() == math.inf


def test_a_value_is_never_served_past_its_own_age(tier: Tier) -> None:
    tier.keep(fresh=tier.clock() + 0.5)
    tier.coherence.begin(tier.clock())
    tier.keep("a:2", fresh=tier.clock() + 0.5)
    tier.clock.advance(0.5)
    assert not tier.serves()
    assert not tier.serves("a:2")


def test_in_a_session_values_live_as_long_as_proofs_go_on(tier: Tier) -> None:
    session = tier.coherence.begin(tier.clock())
    tier.keep()
    for _ in range(10):
        tier.clock.advance(0.9)
        assert tier.serves()
        tier.coherence.prove(session, tier.clock())
    coherent, seconds, why = tier.coherence.told()
    assert (coherent, why) == (True, None)
    assert seconds == pytest.approx(9.0)
    tier.clock.advance(1.0)
    assert not tier.serves()
    assert tier.coherence.told() == (False, 0.0, "the last proof is older than the staleness")
    tier.coherence.prove(session, tier.clock() - 0.4)
    assert tier.serves(), "it was right all the time"
    assert tier.coherence.age() == pytest.approx(0.4)
    tier.clock.advance(0.6)
    assert not tier.serves(), "a proof counts from when it was asked for"
    tier.clock.advance(5.0)
    tier.coherence.prove(session, tier.clock())
    tier.clock.advance(0.5)
    assert tier.coherence.told() == (True, 0.5, None), "nothing was served for a while"


def test_a_session_begins_with_nothing(tier: Tier) -> None:
    tier.keep()
    stamp = tier.near.stamp("a:2")
    tier.coherence.begin(tier.clock())
    assert not tier.serves()
    assert not tier.near.keep("a:2", "value", None, FAR, 10, stamp), "it was asked for before"


def test_after_a_session_values_live_until_its_proof_runs_out(tier: Tier) -> None:
    session = tier.coherence.begin(tier.clock())
    tier.keep()
    tier.clock.advance(0.5)
    tier.coherence.end(session, "it broke")
    assert tier.coherence.told() == (False, 0.0, "it broke")
    assert tier.serves()
    tier.keep("a:2")
    tier.clock.advance(0.5)
    assert not tier.serves()
    tier.keep("a:3")
    assert not tier.serves(), "nobody knows whether it has changed"
    assert tier.serves("a:3")
    tier.clock.advance(1.0)
    assert not tier.serves("a:3")


def test_a_session_that_is_over_proves_nothing(tier: Tier) -> None:
    first = tier.coherence.begin(tier.clock())
    tier.coherence.end(first, "it broke")
    tier.clock.advance(2.0)
    tier.coherence.prove(first, tier.clock())
    tier.keep("a:1")
    tier.clock.advance(1.0)
    assert not tier.serves()
    second = tier.coherence.begin(tier.clock())
    tier.coherence.end(first, "late")
    assert tier.coherence.tracked
    tier.coherence.prove(second, tier.clock())
    assert tier.coherence.told()[0]


def test_what_is_announced_is_dropped_and_fills_that_cross_it_are_refused(tier: Tier) -> None:
    tier.coherence.begin(tier.clock())
    for key in ("a:1", "a:2", "a:3"):
        tier.keep(key)
    stamp = tier.near.stamp("a:1")
    tier.coherence.changed(["a:1", "a:2", "b:1"])
    assert [tier.serves(key) for key in ("a:1", "a:2", "a:3")] == [False, False, True]
    assert not tier.near.keep("a:1", "old", None, FAR, 10, stamp)
    tier.coherence.changed_all()
    assert not tier.serves("a:3")


def test_a_child_serves_by_the_budget_until_it_has_a_session_of_its_own(tier: Tier) -> None:
    tier.coherence.begin(tier.clock())
    tier.coherence.after_fork()
    tier.near.after_fork()
    tier.keep()
    tier.clock.advance(0.9)
    assert tier.serves()
    tier.clock.advance(0.1)
    assert not tier.serves()
