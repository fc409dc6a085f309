"""Near values are vouched for while every node is heard, until the oldest proof ends."""

import itertools

import pytest

from nearcache.near.coherence import Coherence
from nearcache.near.flights import Flights
from nearcache.near.store import Limit, Store
from nearcache.near.union import Member, Union
from tests.promises.helpers import broken, noticed

BUDGET = 1.0


class Nodes:
    """A union of three nodes, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.near = Store(Limit(entries=10), lambda: self.now)
        self.coherence = Coherence(self.near, Flights(), lambda: self.now, BUDGET, wanted=True)
        self.union = Union(self.coherence)
        self.members = [Member(self.union) for _ in range(3)]
        self.union.expect(self.members)

    @property
    def vouched(self) -> float:
        """Until when near values are served."""
        return self.near.vouched


def is_on(nodes: Nodes) -> bool:
    """Tell whether a session is on."""
    return nodes.coherence.tracked


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_session_begins_when_the_last_node_is_heard(order: tuple[int, ...]):
    nodes = Nodes()
    for count, place in enumerate(order):
        assert not is_on(nodes)
        nodes.members[place].begin(100.0 + count)
    assert is_on(nodes)
    assert nodes.vouched == 100.0 + BUDGET, "the oldest proof counts"


def test_the_oldest_proof_counts():
    nodes = Nodes()
    sessions = [member.begin(100.0) for member in nodes.members]
    nodes.members[0].prove(sessions[0], 105.0)
    nodes.members[1].prove(sessions[1], 103.0)
    assert nodes.vouched == 100.0 + BUDGET
    nodes.members[2].prove(sessions[2], 104.0)
    assert nodes.vouched == 103.0 + BUDGET


def test_if_the_newest_proof_counted_a_node_that_is_silent_would_not_be_noticed():
    with noticed(), broken(Union, "_complete", lambda union: bool(union._proofs)):
        test_the_oldest_proof_counts()
        test_a_session_begins_when_the_last_node_is_heard((0, 1, 2))


def test_one_node_that_is_lost_ends_the_session_until_it_is_back():
    nodes = Nodes()
    sessions = [member.begin(100.0) for member in nodes.members]
    nodes.members[1].end(sessions[1], "its connection broke")
    assert nodes.coherence.told()[2] == "its connection broke"
    nodes.members[0].prove(sessions[0], 101.0)
    nodes.members[1].prove(sessions[1], 101.0)
    assert not is_on(nodes), "the session of a connection that is lost proves nothing"
    nodes.members[1].begin(102.0)
    assert is_on(nodes)


def test_a_node_that_appears_is_waited_for_and_one_that_goes_is_not():
    nodes = Nodes()
    sessions = [member.begin(100.0) for member in nodes.members]
    new = Member(nodes.union)
    nodes.union.expect([*nodes.members[:2], new])
    assert not is_on(nodes)
    nodes.members[2].end(sessions[2], "nobody listens to it any more")
    assert nodes.coherence.told()[2] == "not every node of the cluster is heard yet"
    new.begin(101.0)
    assert is_on(nodes)
    nodes.union.expect(nodes.members[:2])
    assert is_on(nodes)
    nodes.members[0].end(sessions[0], "lost")
    nodes.union.expect(nodes.members[1:2])
    assert is_on(nodes), "those who are left are heard"


def test_nothing_is_vouched_for_where_nobody_is_listened_to():
    nodes = Nodes()
    nodes.members[0].begin(100.0)
    nodes.union.expect([])
    assert not is_on(nodes)


def test_a_forked_child_is_told_nothing():
    nodes = Nodes()
    for member in nodes.members:
        member.begin(100.0)
    nodes.coherence.after_fork()
    nodes.union.after_fork()
    assert not is_on(nodes)
    nodes.members[0].begin(101.0)
    assert not is_on(nodes)


def test_a_member_stands_for_the_whole():
    nodes = Nodes()
    (member, *_) = nodes.members
    assert (member.wanted, member.budget) == (True, BUDGET)
    member.doubt("the marks are not told")
    assert nodes.coherence.why == "the marks are not told"
