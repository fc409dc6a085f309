"""Nobody takes a replaced engine for the one before until it is noted what that has to be told."""

import threading

import pytest

from nearcache._core.outage import Outage
from nearcache.backends.base import NotServing
from nearcache.backends.redis.slots import SLOTS
from nearcache.backends.redis.topology import Topology
from nearcache.backends.transport.history import History
from nearcache.errors import BackendUnavailableError

PATIENCE = 10.0

BOTH = [[0, 99, [b"h1", 7]], [100, SLOTS - 1, [b"h2", 7]]]


def test_a_connection_that_is_opened_while_it_is_noted_finds_another_history_too() -> None:
    told = list[bool]()

    def note() -> None:
        if not told:
            told.append(False)
            told.append(history.met("two"))

    history = History(note)
    assert not history.met("one")
    assert history.met("two")
    assert told == [False, True]
    assert not history.met("two")


@pytest.mark.parametrize("by", ["a table", "a redirection"])
def test_no_command_goes_to_a_primary_that_appears_before_it_is_noted(by: str) -> None:
    found = list[str]()
    topology = Topology("redis+cluster://h1:7", 1.0, lambda: found.append(repr(topology.owner("a"))))
    topology.take([[0, SLOTS - 1, [b"h1", 7]]], "h1")
    if by == "a table":
        topology.take([[0, SLOTS - 1, [b"h2", 7]]], "h1")
    else:
        topology.moved("a", topology.named("h2:7", topology.owner("a")))
    assert found == ["Node(h1:7)"]
    assert repr(topology.owner("a")) == "Node(h2:7)"
    assert topology.appeared == 1


def test_a_primary_that_goes_is_no_loss() -> None:
    lost = list[str]()
    topology = Topology("redis+cluster://h1:7", 1.0, lambda: lost.append("x"))
    topology.take(BOTH, "h1")
    topology.take([[0, SLOTS - 1, [b"h1", 7]]], "h1")
    assert not lost
    topology.take(BOTH, "h1")
    assert lost == ["x"]


def test_each_question_for_the_slots_begins_with_another_node() -> None:
    topology = Topology("redis+cluster://h1:7,h2:7,h3:7", 1.0, lambda: None)
    asked = [[repr(node) for node in topology._next()] for _ in range(3)]
    assert sorted(order[0] for order in asked) == ["Node(h1:7)", "Node(h2:7)", "Node(h3:7)"]
    assert all(len(order) == 3 for order in asked)


def test_nodes_that_do_not_answer_are_asked_last() -> None:
    topology = Topology("redis+cluster://h1:7,h2:7,h3:7", 1.0, lambda: None)
    topology.take(BOTH, "h1")
    topology.owner("a").outage = Outage(0.0, "silent", 1.0)
    orders = [topology._next() for _ in range(3)]
    assert [order[-1] for order in orders] == [topology.owner("a")] * 3
    assert len({order[0] for order in orders}) == 2


def test_where_slots_are_known_it_is_no_error_that_nobody_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearcache.backends.redis.topology.ASK_AGAIN", -1.0)
    topology = Topology("redis+cluster://127.0.0.1:1", 1.0, lambda: None)
    topology.take([[0, SLOTS - 1, [b"127.0.0.1", 1]]], "h1")
    topology.doubt()
    assert is_due(topology)
    topology.look()
    assert repr(topology.owner("a")) == "Node(127.0.0.1:1)"
    assert is_due(topology), "nobody has told"


def test_where_slots_are_known_nobody_waits_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearcache.backends.redis.topology.ASK_AGAIN", -1.0)
    topology = Topology("redis+cluster://h1:7", 1.0, lambda: None)
    asked, answer = threading.Event(), threading.Event()

    def ask(*_: object) -> object:
        asked.set()
        assert answer.wait(PATIENCE)
        return BOTH

    monkeypatch.setattr("nearcache.backends.redis.topology.ask", ask)
    topology.take([[0, SLOTS - 1, [b"h1", 7]]], "h1")
    topology.doubt()
    asking = threading.Thread(target=topology.look)
    asking.start()
    assert asked.wait(PATIENCE)
    topology.look()
    assert len(topology.primaries) == 1, "it goes on with what is known"
    answer.set()
    asking.join(PATIENCE)
    assert len(topology.primaries) == 2


def is_due(topology: Topology) -> bool:
    """Tell whether to ask again."""
    return topology.due


def test_where_nobody_answers_it_is_asked_again_after_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = Topology("redis+cluster://127.0.0.1:1", 1.0, lambda: None)
    with pytest.raises(BackendUnavailableError, match="no node tells the slots"):
        topology.look()
    assert is_due(topology), "nothing is known yet"
    topology.take([[0, SLOTS - 1, [b"h1", 7]]], "h1")
    topology.doubt()
    assert not is_due(topology)
    monkeypatch.setattr("nearcache.backends.redis.topology.ASK_AGAIN", -1.0)
    topology.take([[0, SLOTS - 1, [b"h1", 7]]], "h1")
    topology.doubt()
    assert is_due(topology)


@pytest.mark.parametrize("address", ["", "elsewhere", "h2:", "h2:port", "h2:٣"])
def test_a_redirection_to_no_address_is_an_answer_that_no_engine_gives(address: str) -> None:
    topology = Topology("redis+cluster://h1:7", 1.0, lambda: None)
    topology.take([[0, SLOTS - 1, [b"h1", 7]]], "h1")
    with pytest.raises(NotServing, match="h1:7 sends commands elsewhere"):
        topology.named(address, topology.owner("a"))


def test_an_address_without_a_host_is_that_of_who_names_it() -> None:
    topology = Topology("redis+cluster://h1:7", 1.0, lambda: None)
    topology.take([[0, SLOTS - 1, [b"h1", 7]]], "h1")
    assert repr(topology.named(":8", topology.owner("a"))) == "Node(h1:8)"
