"""The suite that every backend has to pass, public so that you can run it on a backend of your own."""

from collections.abc import Awaitable, Sequence

from nearcache.backends.base import Backend, Item, Scan
from nearcache.codecs.envelope import SIZE, fill_id_of, pack_ages, unpack
from nearcache.errors import CodecError
from nearcache.testing.lease_checks import LeaseChecks
from nearcache.testing.limit_checks import LimitChecks
from nearcache.testing.lock_checks import LockChecks
from nearcache.testing.session_checks import SessionChecks
from nearcache.testing.suite import HOUR, both


class BackendConformance(LeaseChecks, LockChecks, SessionChecks, LimitChecks):
    """What every backend must do. Subclass it in a test module as `Test...` and say how yours is built.

    Each test runs in both flavours against `build(flavour)`. Backends are built over one engine, whose records of the
    backend's namespace are removed by the suite.
    """

    @both
    async def test_a_record_comes_back_as_it_is(self, backend: Backend) -> None:
        """Any bytes are kept, whatever they look like on a wire."""
        for n, payload in enumerate((b"", b"\r\n$-1\r\n", bytes(range(256)), b"x" * 300_000)):
            await backend.set(self.item(n, payload))
            assert await backend.get(f"t:{n}") == self.record(payload)

    @both
    async def test_an_absent_record_is_none(self, backend: Backend) -> None:
        """None is the answer for what is not there."""
        assert await backend.get("t:0") is None
        assert await backend.get_many(["t:0", "t:1"]) == [None, None]
        assert await backend.remaining(["t:0"]) == [None]

    @both
    async def test_many_records_come_in_the_order_of_their_keys(self, backend: Backend) -> None:
        """Absent ones leave a gap, doubled ones come twice."""
        await backend.set_many([self.item(n, b"%d" % n) for n in (3, 1)])
        got = await backend.get_many(["t:1", "t:2", "t:3", "t:1"])
        assert got == [self.record(b"1"), None, self.record(b"3"), self.record(b"1")]
        await backend.set_many([])
        assert await backend.get_many([]) == []

    @both
    async def test_a_set_replaces_value_and_life(self, backend: Backend) -> None:
        """The last write wins."""
        await backend.set(self.item(0, b"1", ttl=5.0))
        await backend.set(self.item(0, b"2", ttl=HOUR))
        assert await backend.get("t:0") == self.record(b"2")
        assert _near(await backend.remaining(["t:0"]), HOUR)

    @both
    async def test_an_add_stores_only_what_is_absent_or_dead(self, backend: Backend) -> None:
        """A live record stays; one that its reader judged dead is replaced, by its fill id."""
        assert await backend.add(self.item(0, b"1"), b"")
        assert not await backend.add(self.item(0, b"2"), b"")
        assert await backend.get("t:0") == self.record(b"1")
        if self.enveloped:
            assert not await backend.add(self.item(0, b"2"), b"another!")
            assert await backend.add(self.item(0, b"2"), b"fill--id")
            assert await backend.get("t:0") == self.record(b"2")

    @both
    async def test_a_delete_counts_what_was_there(self, backend: Backend) -> None:
        """Absent keys do not count."""
        await backend.set_many([self.item(0), self.item(1)])
        assert await backend.delete(["t:0", "t:1", "t:2"]) == 2
        assert await backend.delete(["t:0"]) == 0
        assert await backend.delete([]) == 0
        assert await backend.get("t:0") is None

    @both
    async def test_a_touch_changes_life_and_ages_of_the_record_it_was_meant_for(self, backend: Backend) -> None:
        """Another record, or none, is left alone."""
        fill_id, ages = (b"fill--id", pack_ages(60.0, 70.0)) if self.enveloped else (b"", b"")
        assert not await backend.touch("t:0", 60.0, fill_id, ages)
        assert await backend.get("t:0") is None
        await backend.set(self.item(0, b"1", ttl=HOUR))
        assert await backend.touch("t:0", 60.0, fill_id, ages)
        assert _near(await backend.remaining(["t:0"]), 60.0)
        if self.enveloped:
            record = unpack(await backend.get("t:0") or b"")
            assert (record.soft, record.hard, record.payload) == (60.0, 70.0, b"1")
            assert not await backend.touch("t:0", 90.0, b"another!", ages)
            assert _near(await backend.remaining(["t:0"]), 60.0)

    @both
    async def test_a_counter_counts_exactly(self, backend: Backend) -> None:
        """Up to 64 bits, from 0; value and life stay when the sum does not fit."""
        if backend.counters is None:
            return
        fresh = self.record(b"", fill_id=b"fresh-id") if self.enveloped else b""
        incr = backend.counters.incr
        assert await incr("t:0", 5, fresh, 60.0, b"") == 5
        assert await incr("t:0", -7, fresh, HOUR, b"") == -2
        assert _near(await backend.remaining(["t:0"]), 60.0)
        await backend.set(self.item(1, b"%d" % (2**63 - 2)))
        assert await incr("t:1", 1, fresh, HOUR, b"") == 2**63 - 1
        before = await backend.get("t:1")
        await _raises(CodecError, incr("t:1", 1, fresh, HOUR, b""))
        assert await backend.get("t:1") == before

    @both
    async def test_a_counter_takes_the_fill_id_of_each_change(self, backend: Backend) -> None:
        """So that a copy of the old number can be told from the new one; a dead counter begins anew."""
        if backend.counters is None or not self.enveloped:
            return
        await backend.set(self.item(0, b"41"))
        assert await backend.counters.incr("t:0", 1, self.record(b"", b"second-1"), HOUR, b"") == 42
        raw = await backend.get("t:0") or b""
        assert (fill_id_of(raw), raw[SIZE:]) == (b"second-1", b"42")
        assert await backend.counters.incr("t:0", 1, self.record(b"", b"third--1"), HOUR, b"second-1") == 1

    @both
    async def test_what_is_no_number_cannot_be_counted(self, backend: Backend) -> None:
        """It stays as it is."""
        if backend.counters is None:
            return
        raw = self.record(b"text", codec=1)
        await backend.set(Item("t:0", raw, HOUR))
        fresh = self.record(b"") if self.enveloped else b""
        await _raises(CodecError, backend.counters.incr("t:0", 1, fresh, HOUR, b""))
        assert await backend.get("t:0") == raw

    @both
    async def test_a_scan_finds_the_keys_of_a_prefix(self, backend: Backend) -> None:
        """Characters that are special in patterns are taken as they are."""
        if backend.scan is None:
            return
        keys = ["t:1", "t:12", "t:*", "t:[1]"]
        await backend.set_many([Item(key, self.record(b"1"), HOUR) for key in keys])
        try:
            assert await _listed(backend.scan, "t:1") == {"t:1", "t:12"}
            assert await _listed(backend.scan, "t:*") == {"t:*"}
            assert set(keys) <= await _listed(backend.scan, "")
        finally:
            await backend.delete(keys)

    @both
    async def test_the_engine_can_be_asked_and_closed_and_used_again(self, backend: Backend) -> None:
        """Closing twice is no error, and it can be opened again; what it finds there may be another engine."""
        await backend.ping()
        await backend.set(self.item(0))
        assert backend.time.known
        assert backend.time.earliest() <= backend.time.latest()
        await backend.close()
        await backend.close()
        await backend.open()
        assert await backend.get("t:0") == self.record(b"1")


def _near(remaining: Sequence[float | None], expected: float) -> bool:
    """Tell whether the record lives as long as expected, give or take a slow machine."""
    return remaining[0] is not None and expected - 30.0 < remaining[0] <= expected


async def _raises(kind: type[Exception], work: Awaitable[object]) -> None:
    try:
        await work
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


async def _listed(scan: Scan, prefix: str) -> set[str]:
    cursor, keys = await scan.page("", prefix)
    found = set(keys)
    while cursor:
        cursor, keys = await scan.page(cursor, prefix)
        found.update(keys)
    return found
