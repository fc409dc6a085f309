"""No read that begins later than the staleness after an acknowledged write returns what was there before, whatever
happens to connections, processes and the engine; and where nothing happens, reads are served from memory.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import hiredis
import pytest

from nearcache.backends.hazelcast.feed import ring_of
from nearcache.backends.hazelcast.library import HazelcastClient
from nearcache.backends.redis.names import marks_of
from tests.cluster import Cluster, cluster
from tests.hazelcast import Member, members, url_of
from tests.promises.board import KEYS, READERS, Board
from tests.promises.helpers import LIBRARY, PATIENCE, dice, eventually, noticed_within
from tests.proxy import Proxy, proxied
from tests.servers import CHECKOUT, Kind, RedisServer, redis_server

pytestmark = pytest.mark.alone

T = TypeVar("T", bound="Processes")

STALENESS = 0.6
NEAR_SHARE = 0.9
"""Of the reads while nobody writes, so many are served from memory."""

STRANGE = bytearray(b"somebody 1 others:1")
"""An entry of a ring of changes that concerns nobody."""
AT_ONCE = 999
RING_OVERWRITES = 0


class Processes:
    """One process that writes and some that read."""

    def __init__(self, url_to_write: str, url_to_read: str, directory: Path, bus: str, without: str = "") -> None:
        self.bus = bus
        self.namespace = f"c{uuid.uuid4().hex[:8]}"
        self._path = directory / self.namespace
        self.board = Board(self._path)
        self.writer = self._process("write", url_to_write, without)
        self.readers = [self._process(str(number), url_to_read, without) for number in range(READERS)]

    def _process(self, role: str, url: str, without: str) -> subprocess.Popen[str]:
        words = [
            sys.executable,
            "-m",
            "tests.promises.cohering",
            role,
            str(self._path),
            str(STALENESS),
            self.bus,
            without,
        ]
        path = f"{Path(LIBRARY).parent}{os.pathsep}{CHECKOUT}"
        settings = {"CACHE_URL": url, "CACHE_NAMESPACE": self.namespace, "PYTHONPATH": path}
        environment = {**os.environ, **settings}
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=environment)

    def begin(self) -> None:
        """Wait until every key has been written, and everybody reads."""
        deadline = time.monotonic() + 3 * PATIENCE  # members of Hazelcast may be slow to start
        while not (
            self.board.ready and all(self.board.newer(key, 0)[1] < time.monotonic() for key in range(len(KEYS)))
        ):
            assert time.monotonic() < deadline, "somebody does not begin"
            time.sleep(0.01)

    def end(self) -> "Report":
        """Let all processes end, and return what the readers have seen."""
        self.board.stop()
        said = [process.communicate(timeout=2 * PATIENCE)[0] for process in (*self.readers, self.writer)]
        assert [process.returncode for process in (*self.readers, self.writer)] == [0] * len(said)
        return Report([json.loads(each) for each in said[:-1]], sum(map(self.board.current, range(len(KEYS)))))

    def kill(self) -> None:
        """End what is left of them."""
        for process in (*self.readers, self.writer):
            process.kill()
            process.communicate()

    # What happens to them

    def quiet(self) -> None:
        """Let nobody write for a while."""
        self.board.be_quiet(True)
        time.sleep(1.0)
        self.board.be_quiet(False)

    def readers_stop(self, seconds: float = 2.5 * STALENESS) -> None:
        """Freeze the readers."""
        with self._readers_stopped():
            time.sleep(seconds)

    @contextmanager
    def _readers_stopped(self) -> Iterator[None]:
        for process in self.readers:
            process.send_signal(signal.SIGSTOP)
        yield
        for process in self.readers:
            process.send_signal(signal.SIGCONT)


class Company(Processes):
    """Processes over one engine, which read through a proxy."""

    def __init__(self, server: RedisServer, proxy: Proxy, directory: Path, bus: str, without: str = "") -> None:
        self.server = server
        self.proxy = proxy
        super().__init__(server.url, f"redis://127.0.0.1:{proxy.port}", directory, bus, without)

    def listeners_are_cut_off(self) -> None:
        """Kill the connections that carry announcements."""
        self.server.command("CLIENT", "KILL", "TYPE", "pubsub")

    def connections_are_cut(self) -> None:
        """Cut every connection of the readers."""
        self.proxy.cut()

    def connections_are_cut_before_a_silence(self) -> None:
        """Cut every connection of the readers; what is written before they are back is not written again soon."""
        self.proxy.cut()
        time.sleep(0.05)
        self.quiet()

    def announcements_are_late(self) -> None:
        """Keep back for a while what the engine and the readers say."""
        self.proxy.hold()
        time.sleep(2.5 * STALENESS)
        self.proxy.release()

    def words_are_lost(self) -> None:
        """Lose what the engine and the readers say for a while; then cut the connections."""
        self.proxy.swallow()
        time.sleep(1.5 * STALENESS)
        self.proxy.cut()

    def everything_is_flushed(self) -> None:
        """Empty the engine."""
        self.server.flush()

    def a_stranger_deletes(self) -> None:
        """Delete some keys as another program would."""
        self.server.command("DEL", *(f"{self.namespace}:{key}" for key in KEYS))

    def the_engine_stops(self) -> None:
        """Freeze the engine."""
        self.server.pause()
        time.sleep(0.8 * STALENESS)
        self.server.resume()

    def the_engine_restarts(self) -> None:
        """Kill the engine and start it anew, with what it has written to its disk, if anything."""
        self.server.kill()
        self.server.start()


class ClusterCompany(Processes):
    """Processes over a cluster."""

    def __init__(self, cluster: Cluster, directory: Path, bus: str) -> None:
        self.cluster = cluster
        super().__init__(cluster.url, cluster.url, directory, bus)

    def _some_node(self) -> RedisServer:
        return random.choice(self.cluster.nodes)

    def listeners_are_cut_off(self) -> None:
        """Kill the connections that carry the announcements of a node."""
        self._some_node().command("CLIENT", "KILL", "TYPE", "pubsub")

    def connections_are_cut(self) -> None:
        """Kill all connections to a node."""
        self._some_node().command("CLIENT", "KILL", "TYPE", "normal")

    def everything_is_flushed(self) -> None:
        """Empty a node."""
        self._some_node().flush()

    def a_stranger_deletes(self) -> None:
        """Delete some keys as another program would."""
        for key in KEYS:
            with suppress(hiredis.ReplyError):  # its slot may be moving
                self.cluster.owner(f"{self.namespace}:{key}").command("DEL", f"{self.namespace}:{key}")

    def a_node_stops(self) -> None:
        """Freeze a node, for less long than it takes until another takes over."""
        node = self._some_node()
        node.pause()
        time.sleep(0.8 * STALENESS)
        node.resume()

    def slots_move(self) -> None:
        """Move the slots of some keys and of the marks, under way."""
        for name in (marks_of(self.namespace), *(f"{self.namespace}:{key}" for key in random.sample(KEYS, 3))):
            source = self.cluster.owner(name)
            self.cluster.move(name, random.choice(self.cluster.others(source)))
            time.sleep(0.05)


class HazelcastCompany(Processes):
    """Processes over a cluster of Hazelcast."""

    def __init__(self, cluster: list[Member], directory: Path, without: str = "") -> None:
        self.cluster = cluster
        self._whole()
        super().__init__(url_of(*cluster), url_of(*cluster), directory, "tracking", without)

    def a_member_is_killed(self) -> None:
        """Kill a member that another takes over from; it joins again."""
        self._whole()
        member = random.choice(self.cluster)
        member.kill()
        time.sleep(STALENESS)
        member.start()
        self._whole()

    def a_member_stops(self) -> None:
        """Freeze a member, for less long than it takes until another takes over."""
        member = random.choice(self.cluster)
        member.pause()
        time.sleep(1.5 * STALENESS)
        member.resume()

    def the_cluster_restarts(self) -> None:
        """Kill all members and start them anew; they know nothing."""
        for member in self.cluster:
            member.kill()
        for member in self.cluster:
            member.start()
        self._whole()

    def the_ring_is_overwritten(self) -> None:
        """Overwrite what is announced to readers before they can read it."""
        with self._announcements_lost() as ring:
            for _ in range(ring.capacity() // AT_ONCE + 1):
                ring.add_all([STRANGE] * AT_ONCE, RING_OVERWRITES)

    def the_ring_is_lost(self) -> None:
        """Lose what is announced to readers before they can read it; another ring takes its place, which is longer."""
        with self._announcements_lost() as ring:
            end = ring.tail_sequence()
            ring.destroy()
            while ring.add_all([STRANGE] * AT_ONCE, RING_OVERWRITES) <= end:
                pass

    @contextmanager
    def _announcements_lost(self) -> Iterator[Any]:
        """The ring, while the readers stand after which others have written. Then nobody writes for a while."""
        client: Any = HazelcastClient(cluster_name=self.cluster[0].cluster, cluster_members=[self.cluster[0].where])
        try:
            with self._readers_stopped():
                time.sleep(STALENESS)
                self.board.be_quiet(True)
                yield client.get_ringbuffer(ring_of(self.namespace)).blocking()
            time.sleep(2 * STALENESS)
            self.board.be_quiet(False)
        finally:
            client.shutdown()

    def _whole(self) -> None:
        eventually(lambda: all(member.safe(len(self.cluster)) for member in self.cluster), "all are there")


class Report:
    """What all readers have seen."""

    def __init__(self, parts: list[dict[str, Any]], writes: int) -> None:
        self.violations: list[str] = [each for part in parts for each in part["violations"]]
        self.reads = sum(part["reads"] for part in parts)
        self.writes = writes
        self.near = sum(part["near"] for part in parts) / max(1, self.reads)
        self.quiet_reads = sum(part["quiet"]["all"] for part in parts)
        self.quiet = sum(part["quiet"]["near"] for part in parts) / max(1, self.quiet_reads)
        self.worst = max(part["worst"] for part in parts)
        self.lags: list[list[float]] = [part["lag"] for part in parts]

    def __str__(self) -> str:
        return (
            f"{self.writes} writes, {self.reads} reads, {self.near:.1%} near ({self.quiet:.1%} while nobody wrote), "
            f"oldest value served {1000 * self.worst:.1f} ms after the next was acknowledged, "
            f"{len(self.violations)} violations"
        )


@contextmanager
def begun(made: T) -> Iterator[T]:
    """Wait until these processes are at work, and end what is left of them."""
    try:
        made.begin()
        yield made
    finally:
        made.kill()


@contextmanager
def company(kind: Kind, directory: Path, *options: str, bus: str = "tracking", without: str = "") -> Iterator[Company]:
    """Start a company over an engine of its own."""
    with (
        redis_server(kind, *options) as server,
        proxied(server.port) as proxy,
        begun(Company(server, proxy, directory, bus, without)) as made,
    ):
        yield made


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for a board."""
    with tempfile.TemporaryDirectory(prefix="nc-board-") as made:
        yield Path(made)


DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

Fault = Callable[[Company], None]
FAULTS: tuple[Fault, ...] = (
    Company.listeners_are_cut_off,
    Company.connections_are_cut,
    Company.connections_are_cut_before_a_silence,
    Company.announcements_are_late,
    Company.words_are_lost,
    Company.everything_is_flushed,
    Company.a_stranger_deletes,
    Company.readers_stop,
    Company.the_engine_stops,
    Company.the_engine_restarts,
)


@pytest.mark.parametrize(
    ("kind", "bus", "options"),
    [
        ("redis", "tracking", ()),
        pytest.param("valkey", "tracking", DURABLE, marks=pytest.mark.slow),
        ("redis", "stream", DURABLE),
        pytest.param("valkey", "stream", (), marks=pytest.mark.slow),
    ],
    ids=["redis-tracking-forgetful", "valkey-tracking-durable", "redis-stream-durable", "valkey-stream-forgetful"],
)
def test_no_read_is_older_than_the_staleness(kind: Kind, options: tuple[str, ...], bus: str, directory: Path) -> None:
    with company(kind, directory, *options, bus=bus) as made:
        for fault in FAULTS:
            fault(made)
            time.sleep(0.3)
        made.quiet()
        report = made.end()
    print(report)
    assert not report.violations, report.violations[:5]
    assert report.reads > 1_000
    assert report.quiet >= NEAR_SHARE, str(report)


@pytest.mark.parametrize(
    ("mechanism", "faults"),
    [
        ("announcements", ()),
        ("proofs", (Company.connections_are_cut_before_a_silence,) * 3),
        ("deadlines", (Company.announcements_are_late,) * 2),
    ],
)
def test_without_a_mechanism_old_values_are_served(mechanism: str, faults: tuple[Fault, ...], directory: Path) -> None:
    def check() -> None:
        with company("valkey", directory, without=mechanism) as made:
            nothing_old_is_served(made, faults)

    noticed_within(3, check, "were too old")


def nothing_old_is_served(made: T, faults: Sequence[Callable[[T], None]]) -> None:
    """Let these faults happen, and demand that no reader has seen a value that was too old."""
    for fault in faults:
        fault(made)
        time.sleep(0.2)
    time.sleep(2 * STALENESS)
    report = made.end()
    assert not report.violations, f"values were too old: {report}"


def play(kind: Kind, bus: str, directory: Path, seconds: float, numbers: random.Random) -> Report:
    """Let faults happen at random for some time."""
    happened = 0
    with company(kind, directory, *numbers.choice([(), DURABLE]), bus=bus) as made:
        until = time.monotonic() + seconds
        made.readers_stop(10.0)
        while time.monotonic() < until:
            numbers.choice((*FAULTS, Company.quiet))(made)
            time.sleep(numbers.random())
            happened += 1
        made.proxy.delay = 0.005
        time.sleep(1.0)
        made.proxy.delay = 0.0
        made.quiet()
        report = made.end()
    print(f"{kind}, {bus}: {happened} faults, {report}")
    return report


CLUSTER_FAULTS: tuple[Callable[[ClusterCompany], None], ...] = (
    ClusterCompany.listeners_are_cut_off,
    ClusterCompany.connections_are_cut,
    ClusterCompany.everything_is_flushed,
    ClusterCompany.a_stranger_deletes,
    ClusterCompany.readers_stop,
    ClusterCompany.a_node_stops,
    ClusterCompany.slots_move,
)


def play_out(company: T, faults: Sequence[Callable[[T], None]]) -> None:
    """Let these faults happen, and judge what the readers saw."""
    with begun(company) as made:
        for fault in faults:
            fault(made)
            time.sleep(0.3)
        made.quiet()
        report = made.end()
    print(f"{len(faults)} faults, {report}")
    assert not report.violations, report.violations[:5]
    assert report.reads > 1_000
    assert report.quiet >= NEAR_SHARE, str(report)


def play_on_a_cluster(kind: Kind, bus: str, directory: Path, times: int) -> None:
    """Let each fault happen so many times, in any order."""
    faults = [*CLUSTER_FAULTS] * times
    dice().shuffle(faults)
    with cluster(kind, spare=1) as nodes:
        play_out(ClusterCompany(nodes, directory, bus), faults)


@pytest.mark.parametrize("bus", ["tracking", pytest.param("stream", marks=pytest.mark.slow)])
def test_no_read_is_older_than_the_staleness_on_a_cluster(bus: str, directory: Path) -> None:
    play_on_a_cluster("redis", bus, directory, 1)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "bus"), [("valkey", "tracking"), ("redis", "stream")])
def test_faults_of_a_cluster(kind: Kind, bus: str, directory: Path) -> None:
    play_on_a_cluster(kind, bus, directory, 5)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "bus"), [("valkey", "tracking"), ("redis", "stream")])
def test_a_minute_of_faults(kind: Kind, bus: str, directory: Path) -> None:
    report = play(kind, bus, directory, 60.0, dice())
    assert not report.violations, report.violations[:5]
    assert report.quiet >= NEAR_SHARE


HazelcastFault = Callable[[HazelcastCompany], None]
HAZELCAST_FAULTS: tuple[HazelcastFault, ...] = (
    HazelcastCompany.a_member_is_killed,
    HazelcastCompany.a_member_stops,
    HazelcastCompany.the_ring_is_overwritten,
    HazelcastCompany.the_ring_is_lost,
    HazelcastCompany.readers_stop,
)


def play_on_hazelcast(directory: Path, *faults: HazelcastFault) -> None:
    """Let these faults happen in a cluster of two members."""
    with members(2) as nodes:
        play_out(HazelcastCompany(nodes, directory), faults)


@pytest.mark.timeout(180)
def test_no_read_is_older_than_the_staleness_over_hazelcast(directory: Path) -> None:
    play_on_hazelcast(directory, *HAZELCAST_FAULTS)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_minute_of_faults_of_hazelcast(directory: Path) -> None:
    faults = [*HAZELCAST_FAULTS, HazelcastCompany.the_cluster_restarts] * 2
    dice().shuffle(faults)
    play_on_hazelcast(directory, *faults)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("mechanism", "faults"),
    [
        ("announcements", ()),
        ("feed", ()),
        ("comparison", (HazelcastCompany.the_ring_is_overwritten, HazelcastCompany.the_ring_is_lost)),
        ("deadlines", (HazelcastCompany.readers_stop,) * 3),
    ],
)
def test_without_a_mechanism_old_values_are_served_over_hazelcast(
    mechanism: str, faults: tuple[HazelcastFault, ...], directory: Path
) -> None:
    def check() -> None:
        with members(2) as nodes, begun(HazelcastCompany(nodes, directory, mechanism)) as made:
            nothing_old_is_served(made, faults)

    noticed_within(3, check, "were too old")


@pytest.mark.soak
@pytest.mark.parametrize("bus", ["tracking", "stream"])
@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_five_minutes_of_faults(kind: Kind, bus: str, directory: Path) -> None:
    report = play(kind, bus, directory, 300.0, dice())
    assert not report.violations, report.violations[:5]
    assert report.quiet >= NEAR_SHARE
