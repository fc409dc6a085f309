"""A view never calls valid what its marks make invalid, whatever it forgot and in which order answers came."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nearcache.near import view as module
from nearcache.near.view import View

TAGS = "abcdef"
MOST = 3
"""Tags that the view under test remembers."""

AT_ONCE = 3
"""Members that the engine tells of at once."""

KEPT = 5
"""Members that the engine keeps."""


def view() -> View:
    """A view whose clock stands still."""
    return View(lambda: 0.0, 1.0)


def learned(marks: dict[str, int], clear: int = 1) -> View:
    """A view that has learned of these marks."""
    made = view()
    made.learn(0.0, marks, clear)
    return made


# Judging


def test_before_it_was_asked_a_view_knows_nothing_and_refuses_nothing():
    made = view()
    assert not made.known
    assert made.holds(0, ["a"])
    assert made.unknown(0, ["a"]) == []


def test_a_value_is_invalid_if_one_of_its_tags_was_marked_later():
    made = learned({"a": 5, "b": 7})
    assert [made.holds(epoch, ["a"]) for epoch in (4, 5, 6)] == [False, True, True]
    assert [made.holds(epoch, ["c", "b", "a"]) for epoch in (6, 7)] == [False, True]
    assert made.holds(4, ["c"])
    assert made.holds(4, [])


def test_a_value_is_invalid_if_everything_was_marked_later():
    made = learned({}, clear=5)
    assert [made.holds(epoch, []) for epoch in (4, 5)] == [False, True]
    assert made.unknown(4, ["a"]) == []


def test_stamps_are_the_same_everywhere_unless_the_engine_names_incarnations():
    view = View(lambda: 0.0, 1.0)
    view.learn(0.0, {"red": 7}, 1)
    assert [view.at_rest(stamp) for stamp in (0, 5, 7)] == [0, 5, 7]
    assert [view.here(stamp) for stamp in (0, 5, 1 << 60)] == [0, 5, 1 << 60]
    assert view.told() == 7
    view.origin = module.Origin(1 << 40, 5)
    assert [view.at_rest(stamp) for stamp in (5, 6, 7)] == [0, (1 << 40) + 1, (1 << 40) + 2]
    assert [view.here((1 << 40) + n) for n in (0, 1, 2, 3)] == [0, 6, 7, 8]
    assert [view.here(stamp) for stamp in (7, (1 << 40) + 3 + module.AHEAD, 1 << 60)] == [0, 0, 0]


def test_marks_only_grow():
    made = learned({"a": 5}, clear=4)
    made.learn(0.0, {"a": 3}, 2)
    assert (made.tags, made.clear, made.last) == ({"a": 5}, 4, 5)


def test_what_was_never_asked_for_is_unknown_where_too_much_was_new():
    made = view()
    made.restart(0.0, {"b": 6, "c": 7}, 2, 3)
    assert made.unknown(5, ["a", "b"]) == ["a"]
    assert made.unknown(6, ["a"]) == []
    assert made.unknown(1, ["a"]) == []
    assert not made.holds(5, ["a"])
    assert made.holds(6, ["a"])


def test_an_answer_makes_single_tags_known():
    made = view()
    made.restart(0.0, {"b": 6, "c": 7}, 1, 0)
    made.answer({"a": 4, "d": 0}, 3, 6)
    assert made.unknown(2, ["a", "d"]) == []
    assert [made.holds(epoch, ["a"]) for epoch in (3, 4)] == [False, True]
    assert [made.holds(epoch, ["d"]) for epoch in (2, 3)] == [False, True]


def test_an_older_answer_lowers_no_mark():
    made = learned({"a": 5})
    made.answer({"a": 0}, 0, 0)
    assert not made.holds(4, ["a"])


def test_an_answer_is_of_no_use_if_marks_were_forgotten_since_the_question():
    made = learned({"a": 2})
    known_from = made.known_from
    made.restart(0.0, {"b": 6, "c": 7}, 1, 0)
    made.answer({"a": 0}, 0, known_from)
    assert made.unknown(4, ["a"]) == ["a"]
    assert not made.holds(4, ["a"])


def test_an_older_mark_does_not_hide_one_that_was_forgotten():
    made = learned({"a": 4})
    made.restart(0.0, {"b": 6, "c": 7}, 1, 0)
    made.learn(0.0, {"a": 2}, 0)
    assert made.unknown(3, ["a"]) == ["a"]


def test_a_restart_that_is_older_than_what_is_known_changes_nothing():
    made = learned({"a": 9})
    made.restart(0.0, {"b": 6, "c": 7}, 2, 3)
    assert (made.tags, made.last, made.known_from) == ({"a": 9}, 9, 0)


# When to ask


@pytest.mark.parametrize(("age", "asking", "due"), [(0.5, False, False), (0.6, False, True), (0.6, True, False)])
def test_the_engine_is_asked_at_half_the_budget_or_at_all_of_it(age: float, asking: bool, due: bool):
    made = View(lambda: 10.0 + age, 1.0)
    assert made.due(asking=True)
    made.learn(10.0, {}, 1)
    assert made.due(asking) == due


def test_a_fixed_view_is_never_due():
    made = View(lambda: 1e9, 1.0, fixed=True)
    assert made.known
    assert not made.due(asking=False)


def test_knowledge_is_as_old_as_its_question():
    made = learned({})
    made.learn(7.0, {}, 2)
    made.learn(5.0, {}, 3)
    assert made.proven == 7.0


# Who is told


@pytest.fixture
def told() -> tuple[View, list[tuple[list[str], bool]]]:
    """A view, and what it told."""
    made, heard = view(), list[tuple[list[str], bool]]()
    made.news = lambda tags, everything: heard.append((sorted(tags), everything))
    return made, heard


def test_the_first_marks_are_no_news(told: tuple[View, list[tuple[list[str], bool]]]):
    made, heard = told
    made.learn(0.0, {"a": 5}, 1)
    assert heard == []
    made.learn(0.0, {"a": 5}, 1)
    assert heard == []


def test_each_mark_is_told_once(told: tuple[View, list[tuple[list[str], bool]]]):
    made, heard = told
    made.learn(0.0, {}, 1)
    made.learn(0.0, {"a": 2, "b": 2}, 0)
    made.learn(0.0, {"a": 2, "b": 3}, 0)
    made.learn(0.0, {}, 4)
    assert heard == [(["a", "b"], False), (["b"], False), ([], True)]


def test_nobody_can_prove_anything_before_what_is_new_was_told():
    made, proven = view(), list[float]()
    made.learn(0.0, {}, 1)
    made.news = lambda *_: proven.append(made.proven)
    made.learn(1.0, {"a": 2}, 0)
    made.restart(2.0, {"a": 5}, 1, 0)
    assert proven == [0.0, 1.0]


def test_a_restart_tells_that_anything_may_have_been_marked(told: tuple[View, list[tuple[list[str], bool]]]):
    made, heard = told
    made.learn(0.0, {}, 1)
    made.restart(0.0, {"a": 5, "b": 6}, 1, 0)
    assert heard == [(["a", "b"], True)]


def test_what_is_forgotten_has_to_be_asked_for(told: tuple[View, list[tuple[list[str], bool]]]):
    made, heard = told
    made.learn(0.0, {"a": 5, "b": 7}, 1)
    assert made.unknown(6, ["a", "c"]) == []
    made.forget()
    assert made.unknown(6, ["a", "c"]) == ["a", "c"]
    assert made.unknown(7, ["a"]) == []
    assert heard == [([], True)]


def test_what_comes_every_time_is_told_once(told: tuple[View, list[tuple[list[str], bool]]]):
    made, heard = told
    made.learn(0.0, {}, 1)
    for sent in (1.0, 2.0, 3.0):
        made.restart(sent, {"a": 5, "b": 5}, 1, 0)
    assert heard == [(["a", "b"], True)]
    assert made.proven == 3.0


def test_a_view_that_forgot_asks_again():
    with mock.patch.object(module, "MOST_TAGS", MOST):
        made = learned({"a": 2, "b": 3, "c": 4})
        made.learn(0.0, {"d": 5}, 0)
    assert made.unknown(1, ["a", "b", "c", "d"]) == ["a", "b", "c"]
    assert not any(made.holds(1, [tag]) for tag in "abcd")
    assert made.holds(5, ["a", "d"])


# Against a model that forgets nothing


@dataclass
class Engine:
    """The record of marks as the engine keeps it, and everything that was ever marked."""

    stamp: int = 1
    clear: int = 1
    purge: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    ever: list[tuple[int, str]] = field(default_factory=lambda: [(1, "")])
    """Each stamp with its tag, "" for everything."""

    def mark(self, tags: Sequence[str], everything: bool) -> None:
        """Do what `mark.lua` does."""
        self.stamp += 1
        if everything or not self.clear:
            self.clear, self.purge, self.kept = self.stamp, 0, {}
            self.ever.append((self.stamp, ""))
        for tag in tags:
            self.kept[tag] = self.stamp
            self.ever.append((self.stamp, tag))
        while len(self.kept) > KEPT:
            oldest = min(self.kept, key=lambda tag: self.kept[tag])
            self.purge = max(self.purge, self.kept.pop(oldest))

    def lose(self) -> None:
        """Evict the record."""
        self.clear, self.purge, self.kept = 0, 0, {}

    def news(self, since: int) -> tuple[dict[str, int], int, bool]:
        """Return marks from a stamp on, the newest first: tags, the one of everything, and whether there are more."""
        members = [(stamp, tag) for tag, stamp in self.kept.items()] + ([(self.clear, "")] if self.clear else [])
        found = sorted([member for member in members if member[0] >= since], reverse=True)[:AT_ONCE]
        tags = {tag: stamp for stamp, tag in found if tag}
        return tags, max([stamp for stamp, tag in found if not tag], default=0), len(found) == AT_ONCE

    def invalid(self, epoch: int, tag: str, known: int) -> bool:
        """Whether a mark that is not newer than `known` is newer than a value."""
        return any(epoch < stamp <= known and which in ("", tag) for stamp, which in self.ever)


class Judging(RuleBasedStateMachine):
    """Answers of the engine arrive in any order, however late."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine()
        self.view = view()
        self.view.learn(0.0, {}, 1)
        self.coming: list[Iterator[None]] = []
        self.patch = mock.patch.object(module, "MOST_TAGS", MOST)
        self.patch.start()

    def teardown(self) -> None:
        self.patch.stop()

    @rule(tags=st.sets(st.sampled_from(TAGS), min_size=1, max_size=2), everything=st.booleans())
    def mark(self, tags: set[str], everything: bool) -> None:
        self.engine.mark(sorted(tags), everything)

    @rule(tag=st.sampled_from(TAGS))
    def mark_one(self, tag: str) -> None:
        self.engine.mark([tag], False)

    @rule()
    def lose(self) -> None:
        self.engine.lose()

    @rule()
    def begin_to_refresh(self) -> None:
        self.coming.append(self._refresh())
        next(self.coming[-1])

    @rule(tag=st.sampled_from(TAGS))
    def begin_to_ask(self, tag: str) -> None:
        self.coming.append(self._ask([tag]))
        next(self.coming[-1])

    @precondition(lambda self: self.coming)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.coming) - 1))
        next(self.coming.pop(number), None)

    @rule(epoch=st.integers(0, 50), tags=st.sets(st.sampled_from(TAGS), max_size=3))
    def judge_as_of_now(self, epoch: int, tags: set[str]) -> None:
        """With nothing on its way, a value is judged as the engine would, but for what that forgot."""
        for arriving in self.coming:
            next(arriving, None)
        self.coming.clear()
        for _ in range(2):
            self._at_once(self._refresh())
        asked = sorted(tags)
        self._at_once(self._ask(self.view.unknown(epoch, asked)))
        holds = self.view.holds(epoch, asked)
        right = not any(self.engine.invalid(epoch, tag, self.engine.stamp) for tag in [*asked, ""])
        assert holds == right or (right and epoch < self.engine.purge) or self.view.unknown(epoch, asked)

    @invariant()
    def nothing_is_valid_that_a_known_mark_makes_invalid(self) -> None:
        for epoch in range(self.engine.stamp + 1):
            for tag in TAGS:
                if self.view.holds(epoch, [tag]):
                    assert not self.engine.invalid(epoch, tag, self.view.last), (epoch, tag)

    def _refresh(self) -> Iterator[None]:
        """Ask for news, and take them in when the answer comes."""
        since = self.view.last
        if not self.engine.clear:
            self.engine.mark([], True)
        tags, clear, more = self.engine.news(since)
        yield
        if more:
            self.view.restart(0.0, tags, max(clear, self.engine.clear), self.engine.purge)
        else:
            self.view.learn(0.0, tags, clear)

    def _ask(self, tags: Sequence[str]) -> Iterator[None]:
        """Ask for single tags, and take the answer in when it comes."""
        known_from, clear, purge = self.view.known_from, self.engine.clear, self.engine.purge
        marks = {tag: self.engine.kept.get(tag, 0) for tag in tags}
        yield
        self.view.answer(marks, max(clear or self.view.last, purge), known_from)

    def _at_once(self, question: Iterator[None]) -> None:
        for _ in question:
            pass


TestJudging = Judging.TestCase
TestJudging.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
