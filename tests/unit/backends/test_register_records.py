"""What registers hold beside the cache's own records, and how stamps are translated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.backends.registers.base import Answer
from nearcache.backends.registers.records import (
    BUCKET_BYTES,
    Bucket,
    Head,
    bucket_in,
    head_in,
    new_head,
    opened,
    packed,
    record_in,
    stub,
    stub_in,
)
from nearcache.backends.registers.stamps import Stamps
from nearcache.codecs.codec import COUNTER
from nearcache.codecs.envelope import NO_SCHEMA, Record, pack, unpack
from nearcache.near.view import AHEAD, View

FIRST = 1 << 40


def record(epoch: int) -> bytes:
    return pack(Record(0, b"fill--id", epoch, 1.0, 60.0, 60.0, 0.0, COUNTER, NO_SCHEMA, ("a:1",), b"1"))


# Stubs


@given(st.none() | st.binary(max_size=100), st.floats(0, 1e5))
def test_a_stub_comes_back_with_the_record_that_it_carries(old: bytes | None, life: float):
    made = stub("0123456789abcdef", life, old)
    found = stub_in(made.bytes())
    assert found is not None
    assert (found.token, found.old, found.salt) == (made.token, old, made.salt)
    assert found.life == pytest.approx(life, abs=0.001)
    assert record_in(made.bytes()) == old


def test_no_two_stubs_are_the_same():
    assert stub("one", 5.0, None).bytes() != stub("one", 5.0, None).bytes()


@given(st.binary(max_size=60))
def test_what_is_no_stub_is_a_record(raw: bytes):
    found = stub_in(raw)
    assert record_in(raw) == (raw if found is None else found.old)
    assert found is None or raw[:1] in (b"\xc0", b"\xbf")


def test_a_record_of_the_cache_is_no_stub():
    assert stub_in(record(1)) is None
    assert stub_in('{"é": 1}'.encode()) is None
    assert record_in(None) is None


# Heads and buckets


def test_a_mark_gets_the_next_stamp_and_takes_the_place_of_an_older_one():
    head = Head(FIRST, 3, 1, {"a:1": 2, "b:1": 3}).marked(["a:1", "c:1"])
    assert head == Head(FIRST, 4, 1, {"a:1": 4, "b:1": 3, "c:1": 4})


def test_the_older_half_leaves_a_head_and_the_newest_mark_stays():
    head, moved = Head(FIRST, 5, 1, {"a:1": 5, "b:1": 3, "c:1": 4}).halved()
    assert (head, moved) == (Head(FIRST, 5, 3, {"c:1": 4, "a:1": 5}), {"b:1": 3})
    head, moved = Head(FIRST, 5, 4, {"a:1": 5, "b:1": 5}).halved()
    assert (head.above, len(head.log), len(moved)) == (5, 1, 1)
    head, moved = Head(FIRST, 5, 4, {"a:1": 5}).halved()
    assert (head.log, moved) == ({"a:1": 5}, {})


def test_a_bucket_only_grows_and_answers_with_its_floor_for_others():
    bucket = opened(FIRST, 4).merged({"a:1": 6, "b:1": 3}).merged({"a:1": 5})
    assert bucket.marks == {"a:1": 6}
    assert [bucket.stamp(tag) for tag in ("a:1", "b:1", "c:1")] == [6, 4, 4]
    assert opened(FIRST, 4).salt != opened(FIRST, 4).salt


def test_the_older_half_of_a_full_bucket_becomes_its_floor():
    moved = {f"tags:{n}-{'x' * 50}": n + 10 for n in range(300)}
    bucket = opened(FIRST, 4).merged(moved)
    assert len(packed(bucket)) <= BUCKET_BYTES
    assert all(bucket.stamp(tag) >= stamp for tag, stamp in moved.items())
    newest = f"tags:299-{'x' * 50}"
    assert bucket.stamp(newest) == 309


def test_two_heads_are_never_of_one_incarnation():
    one, other = new_head(), new_head()
    assert one.first != other.first
    assert head_in(packed(one)) == one


@given(st.binary(max_size=60))
def test_bytes_of_others_are_neither_head_nor_bucket(raw: bytes):
    head, bucket = head_in(raw), bucket_in(raw)
    assert head is None or isinstance(head, Head)
    assert bucket is None or isinstance(bucket, Bucket)


@pytest.mark.parametrize(
    "head",
    [
        Head(0, 1, 1, {}),
        Head(1, 1, 1, {}),
        Head(FIRST, 0, 0, {}),
        Head(FIRST, 1 << 48, 1, {}),
        Head(FIRST, 5, 6, {}),
        Head(FIRST, 5, 1, {"a:1": 6}),
    ],
)
def test_a_head_that_nobody_can_have_stored_is_none(head: Head):
    assert head_in(packed(head)) is None


def test_a_head_is_no_bucket_and_the_other_way_round():
    assert bucket_in(packed(new_head())) is None
    assert head_in(packed(opened(FIRST, 1))) is None


# Stamps


class Knowledge:
    """A view with its stamps, and an engine's head."""

    def __init__(self) -> None:
        self.now = 0.0
        self.view = View(lambda: self.now, 1.0)
        self.stamps = Stamps(self.view)

    def learn(self, head: Head, asked: int | None = None) -> bool:
        self.now += 1
        asked = self.stamps.learned if asked is None else asked
        return self.stamps.learn(Answer(True, packed(head), head), head, self.now, asked) is not None


def epoch_of(raw: bytes) -> int:
    return unpack(raw).epoch


def test_a_stamp_comes_back_as_it_went_out():
    known = Knowledge()
    known.learn(Head(FIRST, 7, 1, {"a:1": 7}))
    assert known.view.last == 7
    stored = known.stamps.outward(record(7))
    assert epoch_of(stored) == FIRST + 7
    assert known.stamps.inward(stored) == record(7)


def test_what_was_stored_under_another_incarnation_is_invalid():
    known = Knowledge()
    known.learn(Head(FIRST, 7, 1, {"a:1": 7}))
    stored = known.stamps.outward(record(7))
    known.learn(Head(2 * FIRST, 1, 1, {}))
    assert known.view.last == 8
    assert epoch_of(known.stamps.inward(stored)) == 0
    assert not known.view.holds(0, [])
    assert epoch_of(known.stamps.outward(record(7))) == 0, "sealed before the other incarnation was met"
    assert epoch_of(known.stamps.outward(record(8))) == 2 * FIRST + 1


def test_what_was_stored_by_who_knows_more_is_valid_within_reason():
    known = Knowledge()
    known.learn(Head(FIRST, 7, 1, {"a:1": 7}))
    assert epoch_of(known.stamps.inward(record(FIRST + 9))) == 9
    assert epoch_of(known.stamps.inward(record(FIRST + 8 + AHEAD))) == 0
    assert epoch_of(known.stamps.inward(record(FIRST))) == 0
    assert known.stamps.inward(b"foreign") == b"foreign"


def test_before_anything_is_known_everything_is_stored_as_invalid():
    known = Knowledge()
    assert epoch_of(known.stamps.outward(record(5))) == 0


def test_marks_that_were_forgotten_by_the_head_have_to_be_asked_for():
    known = Knowledge()
    known.learn(Head(FIRST, 3, 1, {"a:1": 2, "b:1": 3}))
    known.learn(Head(FIRST, 9, 8, {"c:1": 9}))
    assert known.view.last == 9
    assert known.view.unknown(3, ["a:1", "c:1"]) == ["a:1"]
    assert not known.view.holds(3, ["a:1"])


def test_an_answer_that_comes_late_takes_nothing_back():
    known = Knowledge()
    known.learn(Head(FIRST, 3, 1, {"a:1": 3}))
    asked = known.stamps.learned
    known.learn(Head(2 * FIRST, 2, 1, {"b:1": 2}))
    assert not known.learn(Head(FIRST, 3, 1, {"a:1": 3}), asked), "it is to be asked for again"
    assert known.stamps.known is not None
    assert known.stamps.known.head.first == 2 * FIRST
    assert known.learn(Head(2 * FIRST, 1, 1, {}), asked), "the same incarnation: older, and nothing is lost by it"
    assert known.view.last == 3 + 2


def test_an_engine_that_goes_back_is_noticed():
    known = Knowledge()
    first, second = Head(FIRST, 3, 1, {"a:1": 3}), Head(2 * FIRST, 2, 1, {"b:1": 2})
    known.learn(first)
    assert not known.stamps.went_back(second, known.stamps.learned)
    known.learn(second)
    assert known.stamps.went_back(first, known.stamps.learned)
    assert known.stamps.went_back(Head(2 * FIRST, 1, 1, {}), known.stamps.learned)
    assert not known.stamps.went_back(first, known.stamps.learned - 1), "it may be late"


def test_what_a_process_leaves_is_judged_by_the_stamps_of_the_next_one():
    one, other = Knowledge(), Knowledge()
    one.learn(Head(FIRST, 7, 1, {"a:1": 7}))
    one.learn(Head(2 * FIRST, 1, 1, {}))
    left = one.view.told()
    assert other.view.holds(other.view.here(left), ["a:1"]), "nothing is known yet"
    other.learn(Head(2 * FIRST, 1, 1, {}))
    assert other.view.holds(other.view.here(left), ["a:1"])
    other.learn(Head(2 * FIRST, 2, 1, {"a:1": 2}))
    assert not other.view.holds(other.view.here(left), ["a:1"])
    assert other.view.holds(other.view.here(left), ["b:1"])
    other.learn(Head(3 * FIRST, 1, 1, {}))
    assert not other.view.holds(other.view.here(left), ["b:1"])
