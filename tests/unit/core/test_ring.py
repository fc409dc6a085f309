"""The ring of servers."""

from collections import Counter

import pytest

from nearcache._core.ring import Ring

SERVERS = [(f"10.0.0.{number}", 11211) for number in range(5)]
KEYS = [f"app:users:{number}" for number in range(5_000)]


def test_every_server_has_its_share():
    shares = Counter(map(Ring(SERVERS).of, KEYS))
    assert sorted(shares) == [0, 1, 2, 3, 4]
    assert min(shares.values()) > len(KEYS) / 10


def test_one_server_has_all():
    assert {Ring([("cache", 11212)]).of(key) for key in KEYS} == {0}


def test_few_keys_move_when_a_server_leaves_and_only_its_own():
    before, after = Ring(SERVERS), Ring(SERVERS[:4])
    moved = [key for key in KEYS if before.of(key) != after.of(key)]
    assert 0 < len(moved) < len(KEYS) * 0.35
    assert {before.of(key) for key in moved} == {4}


def test_without_some_servers_keys_are_where_a_ring_of_the_others_has_them():
    ring, others = Ring(SERVERS), Ring([SERVERS[number] for number in (0, 2, 4)])
    assert [ring.of(key, {1, 3}) for key in KEYS] == [(0, 2, 4)[others.of(key)] for key in KEYS]


def test_the_order_of_the_list_does_not_matter():
    there, back = Ring(SERVERS), Ring(SERVERS[::-1])
    assert all(SERVERS[there.of(key)] == SERVERS[::-1][back.of(key)] for key in KEYS)


@pytest.mark.parametrize(
    ("servers", "owners"),
    [
        ([("127.0.0.31", 11211), ("127.0.0.32", 11211), ("127.0.0.33", 11211)], "11012221211201011022"),
        ([("127.0.0.1", 21001), ("127.0.0.1", 21002), ("127.0.0.1", 21003)], "21120121110200210020"),
    ],
)
def test_keys_stay_where_they_are_from_release_to_release(servers: list[tuple[str, int]], owners: str):
    ring = Ring(servers)
    assert "".join(str(ring.of(f"app:users:{number}")) for number in range(20)) == owners
