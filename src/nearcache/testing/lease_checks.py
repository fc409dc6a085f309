"""Checks of the ports of leases and marks: who may store, and what an invalidation makes invalid."""

import time
from collections.abc import Awaitable, Callable

from nearcache.backends.base import BACK_OFF, Ask, Backend, Fill, Grant, Item
from nearcache.testing.suite import HOUR, Suite, both

WITHIN = 10.0
"""Seconds after which something that has to happen is taken for never happening."""


class LeaseChecks(Suite):
    """What the ports `leases` and `marks` of every backend must do."""

    @both
    async def test_one_of_those_who_ask_leads(self, backend: Backend) -> None:
        """The same token leads again; others are told how long they wait, and for whom."""
        first, again, other = [
            grant for token in ("one", "one", "two") for grant in await backend.leases.acquire([_ask(token)])
        ]
        assert (first.leads, again.leads, other.leads) == (True, True, False)
        assert (other.raw, other.holder) == (None, "one")
        assert 0 < other.left <= 5.0
        several = await backend.leases.acquire([Ask(f"t:{n}", "three", b"", 5.0) for n in range(3)])
        assert [grant.leads for grant in several] == [False, True, True]

    @both
    async def test_a_record_that_was_stored_meanwhile_is_the_answer(self, backend: Backend) -> None:
        """Unless it is the one that the asker cannot use."""
        item = self.item(0)
        await backend.set(item)
        assert await backend.leases.acquire([_ask("one")]) == [Grant(raw=item.raw)]
        seen = backend.leases.identity(item.raw)
        (grant,) = await backend.leases.acquire([_ask("one", seen)])
        assert grant.leads
        fresh = self.named_item(0, b"2", b"fill-2--")
        assert await backend.leases.fill([Fill(fresh, "one", seen)]) == [True]
        assert await backend.get("t:0") == fresh.raw

    @both
    async def test_only_the_lease_allows_to_store(self, backend: Backend) -> None:
        """A foreign token, one that was used, and none at all are refused."""
        assert await backend.leases.fill([Fill(self.item(0), "nobody", b"")]) == [False]
        await backend.leases.acquire([_ask("one")])
        assert await backend.leases.fill([Fill(self.item(0), "another", b"")]) == [False]
        assert await backend.get("t:0") is None
        assert await backend.leases.fill([Fill(self.item(0), "one", b"")]) == [True]
        assert await backend.leases.fill([Fill(self.item(0), "one", b"")]) == [False]

    @both
    async def test_every_write_and_deletion_revokes_the_lease(self, backend: Backend) -> None:
        """What was read before it is not stored after it, even if the written record is gone by then."""
        other = self.named_item(0, b"7", b"another!")
        fresh = self.record(b"", b"fresh-id") if self.enveloped else b""
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: backend.set(other),
            lambda: backend.set_many([other]),
            lambda: backend.add(other, b""),
            lambda: backend.delete(["t:0"]),
        ]
        if backend.counters is not None:
            incr = backend.counters.incr
            writes.append(lambda: incr("t:0", 7, fresh, HOUR, b""))
        for write in writes:
            await backend.delete(["t:0"])
            await backend.leases.acquire([_ask("one")])
            await write()
            await backend.leases.fill([Fill(self.item(0), "one", b"")])
            assert await backend.get("t:0") != self.item(0).raw
            (grant,) = await backend.leases.acquire([_ask("two", backend.leases.identity(await backend.get("t:0")))])
            assert grant.leads, "the lease was left standing"

    @both
    async def test_what_somebody_else_stored_without_a_lease_stays(self, backend: Backend) -> None:
        """Also where the lease still stands, as after a write by another program."""
        await backend.leases.acquire([_ask("one")])
        other = self.named_item(0, b"7", b"another!")
        await backend.set(other)
        await backend.leases.steal(_ask("one"))
        assert await backend.leases.fill([Fill(self.item(0), "one", b"")]) == [False]
        assert await backend.get("t:0") == other.raw

    @both
    async def test_a_lease_can_be_stolen(self, backend: Backend) -> None:
        """The thief learns which record there is, and who had it before stores no more."""
        assert await backend.leases.steal(_ask("one")) == b""
        assert await backend.leases.steal(_ask("two")) == b""
        assert await backend.leases.fill([Fill(self.item(0), "one", b"")]) == [False]
        assert await backend.leases.fill([Fill(self.item(0), "two", b"")]) == [True]
        assert await backend.leases.steal(_ask("three")) == backend.leases.identity(self.item(0).raw)

    @both
    async def test_a_commit_without_its_lease_leaves_nothing(self, backend: Backend) -> None:
        """Neither the record nor the other writer's lease."""
        await backend.leases.steal(_ask("one"))
        assert await backend.leases.commit(self.item(0, b"1"), "one")
        assert await backend.get("t:0") == self.record(b"1")
        await backend.leases.steal(_ask("one"))
        await backend.leases.steal(_ask("two"))
        assert not await backend.leases.commit(self.item(0, b"2"), "one")
        assert await backend.get("t:0") is None
        assert not await backend.leases.commit(self.item(0, b"3"), "two")
        assert await backend.get("t:0") is None

    @both
    async def test_a_lease_that_is_given_back_is_free(self, backend: Backend) -> None:
        """At once, or after a pause during which nobody gets it."""
        await backend.leases.acquire([_ask("one")])
        await backend.leases.release("t:0", "another", "retry")
        (grant,) = await backend.leases.acquire([_ask("two")])
        assert not grant.leads
        await backend.leases.release("t:0", "one", "retry")
        (grant,) = await backend.leases.acquire([_ask("two")])
        assert grant.leads
        await backend.leases.release("t:0", "two", "fail:ValueError", 0.1)
        (grant,) = await backend.leases.acquire([_ask("three")])
        assert (grant.leads, grant.holder) == (False, BACK_OFF)
        assert grant.left <= 0.1
        await _leads_in_the_end(backend, "three")

    @both
    async def test_a_lease_ends_by_itself(self, backend: Backend) -> None:
        """When its life is over, another one leads, and the first stores no more."""
        await backend.leases.acquire([Ask("t:0", "one", b"", 0.05)])
        await _leads_in_the_end(backend, "two")
        assert await backend.leases.fill([Fill(self.item(0), "one", b"")]) == [False]

    @both
    async def test_marks_make_what_is_older_invalid(self, backend: Backend) -> None:
        """By tag, or everything; what has an epoch from afterwards stays valid."""
        if not self.enveloped:
            return
        view, marks = backend.view, backend.marks
        before = view.last
        await marks.mark(["red", "blue"], False)
        between = view.last
        assert between > before
        assert [view.holds(before, [tag]) for tag in ("red", "blue", "green")] == [False, False, True]
        assert view.holds(between, ["red"])
        await marks.mark(["red"], False)
        assert (view.holds(between, ["red"]), view.holds(between, ["blue"])) == (False, True)
        await marks.ask(["red", "blue", "green"])
        assert (view.holds(between, ["red"]), view.holds(between, ["blue", "green"])) == (False, True)
        await marks.mark([], True)
        assert not view.holds(between, [])
        assert view.holds(view.last, ["red", "blue"])

    def named_item(self, n: int, payload: bytes, fill_id: bytes) -> Item:
        """Return something to store that can be told from other records of its key."""
        return Item(f"t:{n}", self.record(payload, fill_id), HOUR)


def _ask(token: str, seen: bytes = b"") -> Ask:
    return Ask("t:0", token, seen, 5.0)


async def _leads_in_the_end(backend: Backend, token: str) -> None:
    deadline = time.monotonic() + WITHIN
    while not (await backend.leases.acquire([_ask(token)]))[0].leads:
        assert time.monotonic() < deadline, "the lease never ends"
