"""Every script and every pair of commands of a key stays within the key's slot."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import pytest

from nearcache._io.blocking import drive
from nearcache.backends.base import Ask, Fill, Item
from nearcache.backends.redis import RedisBackend, build
from nearcache.backends.redis.leases import LEASE_LIFE
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import lease_of, waiters_of
from nearcache.backends.registry import BackendSpec
from nearcache.codecs.codec import COUNTER
from nearcache.codecs.envelope import NO_SCHEMA, Record, pack, pack_ages
from nearcache.near.view import View
from tests.cluster import Cluster
from tests.promises.helpers import eventually

NAMESPACE = "c"
KEYS = [f"users:{number}" for number in range(12)] + ["users:%7Bx%7D:a:b:c", "ü:1", "a:b:c:d:e:f:g", "flags"]


def record(payload: bytes, fill_id: bytes = b"fill--id") -> bytes:
    """Return a record of a counter."""
    return pack(Record(0, fill_id, 0, 1.0, 60.0, 60.0, 0.0, COUNTER, NO_SCHEMA, (), payload))


class Nodes:
    """A backend for each master."""

    def __init__(self, cluster: Cluster, view: Callable[[], View]) -> None:
        self.cluster = cluster
        self._backends = {
            node.port: build(BackendSpec(node.unix_url, NAMESPACE, pool_min=1, view=view()), "sync")
            for node in cluster.nodes
        }

    def of(self, name: str) -> RedisBackend:
        """Return the backend of the master that holds a name."""
        return self._backends[self.cluster.owner(name).port]

    def close(self) -> None:
        """Give up all connections."""
        for backend in self._backends.values():
            drive(backend.close())


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[Nodes]:
    """Backends that ask for no marks: those are in a slot of their own."""
    made = Nodes(cluster, lambda: View(time.monotonic, 1.0, fixed=True))
    yield made
    made.close()


def test_the_keys_are_on_all_masters(cluster: Cluster) -> None:
    assert len({cluster.owner(f"{NAMESPACE}:{key}").port for key in KEYS}) == 3


@pytest.mark.parametrize("key", KEYS)
def test_what_belongs_to_a_key_is_in_its_slot(cluster: Cluster, key: str) -> None:
    name = f"{NAMESPACE}:{key}"
    assert cluster.slot(lease_of(name)) == cluster.slot(waiters_of(name)) == cluster.slot(name)


@pytest.mark.parametrize("key", KEYS)
def test_all_that_is_done_to_a_key_is_done_by_its_master(nodes: Nodes, key: str) -> None:
    backend = nodes.of(f"{NAMESPACE}:{key}")
    leases, item = backend.leases, Item(key, record(b"1"), 60.0)
    drive(backend.delete([key]))
    (grant,) = drive(leases.acquire([Ask(key, "one", b"", 5.0)]))
    assert grant.leads
    (grant,) = drive(leases.acquire([Ask(key, "two", b"", 5.0)]))
    assert (grant.leads, grant.holder) == (False, "one")
    assert drive(leases.fill([Fill(item, "one", b"")])) == [True]
    seen = leases.identity(item.raw)
    assert drive(leases.steal(Ask(key, "three", b"", 5.0))) == seen
    assert drive(leases.commit(item, "three"))
    drive(leases.steal(Ask(key, "four", b"", 5.0)))
    drive(leases.release(key, "four", "retry"))
    assert not drive(backend.add(item, b""))
    assert drive(backend.add(Item(key, record(b"2", b"fill-2--"), 60.0), b"fill--id"))
    assert backend.counters is not None
    assert drive(backend.counters.incr(key, 3, record(b""), 60.0, b"")) == 5
    assert drive(backend.touch(key, 30.0, b"fill--id", pack_ages(30.0, 30.0)))
    drive(backend.set(item))
    drive(backend.set_many([item]))
    assert drive(backend.get(key)) == item.raw
    assert drive(backend.get_many([key])) == [item.raw]
    assert drive(backend.delete([key])) == 1


@pytest.mark.parametrize("key", KEYS)
def test_a_lease_is_renewed_by_its_master(nodes: Nodes, key: str) -> None:
    name = f"{NAMESPACE}:{key}"
    backend, node = nodes.of(name), nodes.cluster.owner(name)
    drive(backend.leases.acquire([Ask(key, "mine", b"", 5.0)]))
    renew = ("EVAL", script("renew").text, 1, lease_of(name))
    assert node.command(*renew, "mine", 9000) == 1
    assert node.command(*renew, "another's", 9000) == 0
    assert node.command("PTTL", lease_of(name)) > 5000
    drive(backend.delete([key]))


def test_marks_are_kept_by_the_master_of_their_slot(cluster: Cluster) -> None:
    made = Nodes(cluster, lambda: View(time.monotonic, 1.0))
    backend = made.of(f"{{{NAMESPACE}}}~m")
    drive(backend.open())
    before = backend.view.last
    drive(backend.marks.mark(["team:1"], False))
    assert not backend.view.holds(before, ["team:1"])
    drive(backend.marks.mark([], True))
    assert not backend.view.holds(before, [])
    drive(backend.marks.ask(["team:1", "other"]))
    made.close()


def test_a_message_reaches_a_process_that_listens_at_another_master(nodes: Nodes, cluster: Cluster) -> None:
    key = next(key for key in KEYS if cluster.owner(f"{NAMESPACE}:{key}") is cluster.nodes[0])
    holder, other = nodes.of(f"{NAMESPACE}:{key}"), cluster.nodes[2]
    far = build(BackendSpec(other.unix_url, NAMESPACE, pool_min=1), "sync")
    listener: Any = far.listener
    eventually(listener.channel, "it listens")
    mail = far.leases.expect(key)
    drive(holder.leases.acquire([Ask(key, "mine", b"", LEASE_LIFE)]))
    cluster.nodes[0].command("SADD", waiters_of(f"{NAMESPACE}:{key}"), listener.channel())
    drive(holder.leases.release(key, "mine", "fail:ValueError"))
    eventually(lambda: mail.heard == ("mine", "fail:ValueError"), "it hears")
    drive(far.close())


def test_a_script_that_touches_a_key_it_does_not_name_is_noticed(cluster: Cluster) -> None:
    far = next(key for key in KEYS if cluster.owner(f"{NAMESPACE}:{key}") is not cluster.nodes[0])
    with pytest.raises(hiredis.ReplyError, match="non local key"):
        cluster.nodes[0].command("EVAL", f"return redis.call('GET', '{NAMESPACE}:{far}')", 0)
