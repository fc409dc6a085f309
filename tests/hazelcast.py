"""Start members of Hazelcast for tests: each on a free port, without multicast, joined by the addresses of one another.

`make servers` fetches the jars from Maven Central into `.cache/hazelcast`. Tests are skipped, loudly, where a jar or a
Java of 17 or newer is missing, or fail where the variable CI is "true".
"""

import atexit
import json
import shutil
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from tests.servers import CHECKOUT, Program, Server, free_port, missing

VERSIONS = ("5.7.0", "5.5.0")
"""The members that the library is tried with, the usual one first."""

QUICK = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""Have the machine of Java start soon, and take little."""


def jar(version: str) -> Path:
    """Return the jar of a member, or skip the test saying how to get it (with CI=true: fail it)."""
    path = CHECKOUT / ".cache" / "hazelcast" / f"hazelcast-{version}.jar"
    if not path.is_file():
        missing(f"Hazelcast {version} is missing; run `make servers`")
    return path


def java() -> Program:
    """Return the machine of Java, or skip the test."""
    found = shutil.which("java")
    if found is None:
        missing("java is missing, which runs Hazelcast; install a Java of 17 or newer")
    return Program(Path(found), (17,))


class Member(Server):
    """A member of a cluster. `ports` are those of all members, its own first; `maps` are settings of maps by name."""

    start_within: ClassVar[float] = 40.0

    def __init__(
        self, name: str = "", ports: Sequence[int] = (), version: str = VERSIONS[0], **maps: dict[str, object]
    ) -> None:
        self._jar = jar(version)
        super().__init__(java(), ())
        self._ports = ports or [self.port]
        self.port = self._ports[0]
        self.cluster = name or f"nc{self.port}"
        self._maps = maps
        self.rings: Mapping[str, object] = {}
        """Settings of ringbuffers by name, for the next start."""
        self._seen = 0

    @property
    def where(self) -> str:
        """The member's address."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The cluster, by this member."""
        return f"hazelcast://{self.where}/{self.cluster}"

    def said(self, text: str) -> bool:
        """Whether the log has a text since the last start."""
        return text in self.log()[self._seen :]

    def safe(self, size: int) -> bool:
        """Whether the member is in a cluster of so many, and whatever is kept there is kept twice where it can be."""
        try:
            with urllib.request.urlopen(f"http://{self.where}/hazelcast/health", timeout=2.0) as told:
                health = json.load(told)
        except OSError:
            return False
        return health["clusterSafe"] is True and health["clusterSize"] == size and not health["migrationQueueSize"]

    def pause(self) -> None:
        """Freeze the member, and wait until each of its threads stands."""
        super().pause()
        threads = Path(f"/proc/{self.pid}/task")
        deadline = time.monotonic() + 5.0
        while not all(_stands(thread) for thread in threads.iterdir()):
            assert time.monotonic() < deadline, "it does not stand"
            time.sleep(0.001)

    def _command_line(self) -> list[str]:
        self._seen = len(self.log())
        config = self.directory / "member.yaml"
        config.write_text(self.configuration())
        options = (f"-Dhazelcast.config={config}", "-Djava.net.preferIPv4Stack=true")
        program = ("-cp", str(self._jar), "com.hazelcast.core.server.HazelcastMemberStarter")
        return [str(self.program.path), *QUICK, *options, *program]

    def configuration(self) -> str:
        """Return the YAML that the member is started with."""
        return json.dumps({"hazelcast": self._settings()})

    def _settings(self) -> dict[str, object]:
        addresses = [f"127.0.0.1:{port}" for port in self._ports]
        return {
            "cluster-name": self.cluster,
            "jet": {"enabled": False},
            "properties": {
                "hazelcast.phone.home.enabled": "false",
                "hazelcast.max.no.heartbeat.seconds": "10",
                "hazelcast.shutdownhook.policy": "TERMINATE",
            },
            "network": {
                "rest-api": {"enabled": True, "endpoint-groups": {"HEALTH_CHECK": {"enabled": True}}},
                "port": {"port": self.port, "auto-increment": False},
                "interfaces": {"enabled": True, "interfaces": ["127.0.0.1"]},
                "join": {
                    "auto-detection": {"enabled": False},
                    "multicast": {"enabled": False},
                    "tcp-ip": {"enabled": True, "member-list": addresses},
                },
            },
            "map": self._maps,
            "ringbuffer": self.rings,
        }

    def _answers(self) -> bool:
        return self.said(f":{self.port} [{self.cluster}]") and self.said("is STARTED")


def _stands(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"


class SampleMember(Member):
    """A member that is set up as the sample in docs/ says, but for its addresses."""

    def configuration(self) -> str:
        """Return the sample."""
        sample = (CHECKOUT / "docs" / "hazelcast.yaml").read_text()
        port = f"  network:\n    port: {{port: {self.port}, auto-increment: false}}\n"
        for old, new in (
            ("cluster-name: dev\n", f"cluster-name: {self.cluster}\n"),
            ("  network:\n", port),
            ("[host1:5701, host2:5701]", f'["{self.where}"]'),
        ):
            assert old in sample
            sample = sample.replace(old, new)
        return sample


@contextmanager
def members(count: int = 1, version: str = VERSIONS[0], **maps: dict[str, object]) -> Iterator[list[Member]]:
    """Run members of one cluster for the `with` block."""
    ports = [free_port() for _ in range(count)]
    made = list[Member]()
    try:
        for at in range(count):
            made.append(Member(f"nc{ports[0]}", ports[at:] + ports[:at], version, **maps))
            made[-1].start()
        yield made
    finally:
        for member in made:
            member.remove()
            atexit.unregister(member.remove)


def url_of(*cluster: Member) -> str:
    """Return the URL of a cluster by these members."""
    return f"hazelcast://{','.join(member.where for member in cluster)}/{cluster[0].cluster}"


@pytest.fixture(scope="session", name="older_hazelcast")
def _session_older() -> Iterator[Member]:
    """A member of the other version, the same way; for `make soak`."""
    with members(version=VERSIONS[1]) as (member,):
        yield member


@pytest.fixture(scope="session", name="hazelcast")
def _session_hazelcast() -> Iterator[Member]:
    """One member for the whole run; tests use namespaces of their own and never kill it."""
    with members() as (member,):
        yield member
