"""Keys that wait for an engine that is gone."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nearcache import BackendError, Cache
from nearcache._engine.commands import DEBTS_AT_ONCE, Commands
from nearcache._io.blocking import drive
from nearcache.errors import BackendUnavailableError
from nearcache.testing import Faults, FaultyBackend
from tests.promises.helpers import recorded


class Counting(FaultyBackend):
    """Notes how many keys each deletion takes."""

    deletions: list[int]

    async def delete(self, keys: Sequence[str]) -> int:
        """Note it."""
        self.deletions.append(len(keys))
        return await super().delete(keys)


def test_a_call_to_an_engine_that_is_gone_costs_no_more_when_many_keys_wait() -> None:
    cache = Cache("memory://", namespace="debts", observers=())
    engine, faults = cache._parts.engine("sync"), Faults()
    backend = Counting(engine.backend, faults)
    backend.deletions = []
    engine.use(backend)
    many = 3 * DEBTS_AT_ONCE + 1
    faults.down()
    for number in range(many):
        with contextlib.suppress(BackendError):
            cache.delete(f"a:{number}")
    with pytest.raises(BackendError):
        cache.exists("a:1")
    assert max(backend.deletions) <= DEBTS_AT_ONCE
    backend.deletions.clear()
    faults.up()
    cache.open()
    assert backend.deletions == [DEBTS_AT_ONCE] * 3 + [1]


def test_debts_that_others_make_meanwhile_do_not_break_a_call() -> None:
    cache = Cache("memory://", namespace="debts", observers=())
    core = cache._parts.core
    core.debts = Changing({"a:1": object()})
    assert cache.get("b:1") is None
    assert not core.debts


READS: dict[str, tuple[Callable[[Cache], object], object]] = {
    "get": (lambda cache: cache.get("a:1"), None),
    "get_many": (lambda cache: cache.get_many(["a:1", "a:2"]), {"a:2": "kept"}),
    "exists": (lambda cache: cache.exists("a:1"), False),
    "get_or_load": (lambda cache: cache.get_or_load("a:1", lambda: "new"), "new"),
}


@pytest.mark.parametrize("name", READS)
def test_what_was_read_before_somebody_else_paid_is_no_value(name: str) -> None:
    cache, (read, expected) = Cache("memory://", namespace="debts", near=None, observers=()), READS[name]
    backend = cache._parts.engine("sync").backend
    other = Commands(cache._parts.core, backend)

    def pay(operation: str) -> None:
        if operation.startswith("get"):
            cache._parts.core.pay_from = 0.0
            drive(other.run("ping", backend.ping))

    cache.set_many({"a:1": "old", "a:2": "kept"})
    with recorded(cache) as engine:
        engine.fail("delete", 2, error=BackendError("refused"))
        with pytest.raises(BackendError):
            cache.delete("a:1")
        engine.after = pay
        assert read(cache) == expected
    assert not cache._parts.core.debts
    assert cache.get("a:1") is None


class Changing(dict[str, object]):
    """Another thread makes a debt while this one is looked at, the first time."""

    changed = False

    def items(self) -> Any:
        """Begin to iterate, and change."""
        found = iter(super().items())
        if not self.changed:
            self.changed = True
            self["a:2"] = object()
        return found


class Owing(FaultyBackend):
    """An engine that is found to be another one while it is read: what was deleted lately may be back there."""

    owe: Any = None

    async def get(self, key: str) -> bytes | None:
        """Read, while another thread finds out."""
        found = await super().get(key)
        self.owe(key)
        return found

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read, while another thread finds out."""
        found = await super().get_many(keys)
        self.owe(*keys)
        return found


def test_what_is_owed_by_the_time_the_engine_has_answered_is_a_miss() -> None:
    cache = Cache("memory://", namespace="debts", near=None, observers=())
    cache.set_many({"a:1": 1, "a:2": 2})
    engine = cache._parts.engine("sync")
    backend = Owing(engine.backend, Faults())
    backend.owe = engine.core.owe
    engine.use(backend)
    assert cache.get("a:1") is None
    cache.open()
    cache.set_many({"a:1": 1, "a:2": 2})
    assert cache.get_many(["a:1", "a:2"]) == {}


def test_an_engine_that_is_replaced_is_told_at_once_although_the_one_before_refused() -> None:
    cache = Cache("memory://", namespace="debts", near=None, observers=())
    core = cache._parts.core
    cache.set_many({"a:1": 1, "a:2": 2})
    with recorded(cache) as engine:
        engine.fail("delete", 2, error=BackendError("refused"))
        with pytest.raises(BackendError):
            cache.delete("a:1")
        assert cache.get("a:2") == 2, "it pays, and is refused"
        cache.get("a:2")
        assert core.debts, "which is not tried again for a while"
        core.coherence.forgot("memory")
        cache.get("a:2")
        assert not core.debts


class InHalves(Counting):
    """An engine of two nodes, one of which does not answer."""

    @property
    def spreads(self) -> bool:
        """Tell that there are two."""
        return True

    def lacks(self) -> bool:
        """Tell that one is gone."""
        return True

    async def delete(self, keys: Sequence[str]) -> int:
        """Delete what the other one keeps."""
        heard = [key for key in keys if not key.startswith("gone")]
        deleted = await super().delete(heard)
        if len(heard) < len(keys):
            error = BackendUnavailableError("one node is gone")
            error.answered = dict.fromkeys(heard, 1)
            raise error
        return deleted


@pytest.mark.parametrize("marks", ["known", "gone", "refused"])
def test_what_cannot_be_done_at_one_node_keeps_nothing_else_from_being_done(marks: str) -> None:
    cache = Cache("memory://", namespace="debts", near=None, observers=())
    engine, faults = cache._parts.engine("sync"), Faults()
    backend = InHalves(engine.backend, faults)
    backend.deletions = []
    engine.use(backend)
    cache.set_many({"gone:1": "old", "heard:1": "old", "heard:2": "old"})
    core = engine.core
    core.owe(*[f"gone:{number}" for number in range(DEBTS_AT_ONCE)], "heard:1")
    core.owe(*[f"gone:more:{number}" for number in range(DEBTS_AT_ONCE)], "heard:2")
    if marks != "known":
        core.view.owe(["a tag"], everything=False)
        faults.fail("mark", error=BackendUnavailableError("gone") if marks == "gone" else BackendError("refused"))
    assert cache.get("heard:3") is None
    assert set(core.debts) == {key for key in core.debts if key.startswith("gone")}
    assert len(core.debts) == 2 * DEBTS_AT_ONCE
    assert sum(backend.deletions) == 2
    assert bool(core.view.owed) == (marks != "known")
