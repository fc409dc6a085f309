"""The parent's side: it starts the workers of a row and lets their blocks take turns."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

from bench import coherence, crowd, environments, handoff, rows
from bench.coherence import WorkerError
from bench.contenders import start
from bench.team import Team
from bench.work import MANY, PROCESSES
from tests.hazelcast import Member, members
from tests.servers import MemcachedServer, RedisServer, memcached_server, packaged_program, redis_server
from tools.source import ROOT

T = TypeVar("T")

AnyServer = RedisServer | MemcachedServer | Member

Result = dict[str, Any]
"""What is kept of one contender in one row: see `bench.results`."""


OURS = "nearcache"
"""The environment of the contenders for which nearcache's own promises hold."""

STALENESS = 1.0
"""Seconds: nearcache's default, after which no read gets an older value."""

TRACKING = (7, 4)
"""The first version of Redis on which redis-py caches."""


class BenchError(Exception):
    """nearcache itself failed, or one of the checks against cheating did."""


@dataclass
class Samples:
    """Seconds for each call (or bytes), one for each block."""

    wall: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])
    grown: list[float] = field(default_factory=list[float])
    asked: list[float] = field(default_factory=list[float])

    def add(self, n: int, cpu: float, wall: float, grown: float, asked: float = 0) -> None:
        """Add a block of n calls, with which the server ran `asked` commands."""
        self.asked.append(asked / n)
        self.cpu.append(cpu / n)
        self.wall.append(wall / n)
        self.grown.append(grown / n)

    def of(self, measure: rows.Measure) -> list[float]:
        """Return the samples of a measure."""
        return {"wall": self.wall, "cpu": self.cpu, "bytes": self.grown, "commands": self.asked}[measure]


class Worker:
    """One contender in a process of its own."""

    def __init__(self, row: rows.Row, contender: rows.Contender, url: str) -> None:
        self.contender = contender
        self.samples = Samples()
        self.commands: Counter[str] = Counter()
        self.calls = 0
        python = environments.python_of(contender.environment)
        command = [str(python), "-m", "bench.worker", row.name, contender.name, *([url] if url else [])]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=surroundings(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._input, self._output = cast(TextIO, self._process.stdin), cast(TextIO, self._process.stdout)
        self.hello = self.hear()

    def block(self, n: int) -> tuple[float, float, float]:
        """Have n calls made; return what they took."""
        self.calls += n
        cpu, wall, grown = self._ask(n).split()
        return float(cpu), float(wall), float(grown)

    def goodbye(self) -> dict[str, Any]:
        """End the worker; return what it counted."""
        self._input.close()
        said = self.hear()
        self._process.wait(timeout=60)
        return said

    def kill(self) -> None:
        """End the worker whatever it does."""
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()

    def tell(self, words: str) -> None:
        """Write a line to the worker."""
        self._input.write(f"{words}\n")
        self._input.flush()

    def _ask(self, n: int) -> str:
        self.tell(str(n))
        line = self._output.readline()
        if not line or line.startswith("{"):
            raise BenchError(f"{self.contender.name}: {line.strip() or 'the worker ended'}")
        return line

    def hear(self) -> dict[str, Any]:
        """Read a line of JSON from the worker."""
        line = self._output.readline()
        heard: dict[str, Any] = json.loads(line) if line else {"error": "the worker ended without a word"}
        return heard


def surroundings() -> dict[str, str]:
    """Return the variables of a worker: the same hashes in each process, and nothing that changes a cache."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}


def measure(row: rows.Row) -> dict[str, Result]:
    """Measure one row; return the result of each contender by its name."""
    if row.kind == "start":
        return measure_starts(row)
    if row.kind == "crowd":
        return {contender.name: measure_crowd(row, contender) for contender in row.contenders}
    if row.kind == "visible":
        return {contender.name: measure_visible(row, contender) for contender in row.contenders}
    if row.kind == "handoff":
        return {contender.name: measure_handoff(row, contender) for contender in row.contenders}
    if row.kind == "hits":
        return measure_hits(row)
    if row.kind == "memory":
        # One after the other: a million values each.
        return {name: result for one in row.contenders for name, result in _together(row, (one,)).items()}
    return _together(row, row.contenders)


def _together(row: rows.Row, contenders: tuple[rows.Contender, ...]) -> dict[str, Result]:
    failed: dict[str, Result] = {}
    with server_of(row) as server, ExitStack() as stack:
        workers: list[Worker] = []
        for contender in contenders:
            try:
                worker = Worker(row, contender, url_of(row, server))
            except environments.UnavailableError as error:
                failed[contender.name] = {"error": str(error)}
                continue
            stack.callback(worker.kill)
            if "error" in worker.hello:
                failed[contender.name] = {"error": worker.hello["error"]}
            else:
                workers.append(worker)
        take_turns(row, workers, server)
        done = {worker.contender.name: finish(row, worker) for worker in workers}
    return {one.name: done.get(one.name) or failed[one.name] for one in contenders}


@contextmanager
def server_of(row: rows.Row) -> Generator[AnyServer | None]:
    """Run a server for a row that needs one."""
    if not row.url:
        yield None
        return
    if row.url == "memcached":
        with memcached_server() as memcached:
            yield memcached
        return
    if row.url == "hazelcast":
        with members() as (member,):
            yield member
        return
    if not row.server:
        with redis_server("valkey") as server:
            yield server
        return
    program = packaged_program(row.server)
    if program.version < TRACKING:
        raise BenchError(f"{program.path} has version {program.version}; redis-py caches from {TRACKING} on")
    with redis_server("redis", program=program) as server:
        yield server


def url_of(row: rows.Row, server: AnyServer | None) -> str:
    """Return where the server of a row is."""
    if server is None:
        return ""
    if isinstance(server, MemcachedServer):
        return f"memcached://{server.where}"
    if isinstance(server, Member):
        return server.url
    return server.unix_url if row.url == "unix" else server.url


def take_turns(row: rows.Row, workers: list[Worker], server: AnyServer | None) -> None:
    """Warm every worker up, then let blocks take turns; another worker begins each round."""
    if row.kind != "memory":
        for worker in workers:
            counted_block(row, worker, server)
    for turn in range(row.rounds):
        for worker in rotated(workers, turn):
            worker.samples.add(row.calls, *counted_block(row, worker, server))


def rotated(items: Sequence[T], turn: int) -> list[T]:
    """Return these items in order, beginning with another one each turn.

    >>> rotated(["a", "b", "c"], 4)
    ['b', 'c', 'a']
    """
    first = turn % max(1, len(items))
    return [*items[first:], *items[:first]]


def counted_block(row: rows.Row, worker: Worker, server: AnyServer | None) -> tuple[float, ...]:
    """Run one block, and add to the worker what the server says it was asked meanwhile; that is told last."""
    if server is None:
        return worker.block(row.calls)
    before = commands(server)
    taken = worker.block(row.calls)
    asked = commands(server) - before
    worker.commands += asked
    return *taken, asked.total()


def commands(server: AnyServer) -> Counter[str]:
    """Return how often the server has run each command."""
    if isinstance(server, MemcachedServer):
        told = server.stats()
        return Counter({"get": int(told["cmd_get"]), "set": int(told["cmd_set"])})
    if isinstance(server, Member):
        return Counter()  # a member of the open-source edition tells a client nothing
    info = server.info("commandstats")
    found = {name.removeprefix("cmdstat_"): int(info[name].split(",")[0].split("=")[1]) for name in info}
    return Counter({name: number for name, number in found.items() if name != "info"})  # that is this question


def finish(row: rows.Row, worker: Worker) -> Result:
    """End a worker, and see that it did what it was timed for."""
    said = worker.goodbye()
    if problem := dishonest(row, worker, said):
        if worker.contender.name == rows.US:
            raise BenchError(f"{row.name}: {problem}")
        return {"error": problem}
    result: Result = {"versions": worker.hello["versions"], "copies": worker.hello["copies"]}
    return result | {measure: worker.samples.of(measure) for measure in row.kept}


def dishonest(row: rows.Row, worker: Worker, said: dict[str, Any]) -> str | None:
    """Say what is wrong with a worker's calls, if anything is."""
    for name, number in said["counted"].items():
        if number != said["expected"]:
            return f"{name} grew by {number:g} with {said['expected']} hits"
    if said["expected_loads"] not in (None, said["loads"]):
        return f"the function ran {said['loads']} times, not {said['expected_loads']}: nothing was cached"
    if row.command and _miscounted(row, worker):
        return f"the server counted {worker.commands[row.command]} × {row.command} with {worker.calls} calls"
    return None


def _miscounted(row: rows.Row, worker: Worker) -> bool:
    asked = worker.commands[row.command]
    if row.url == "memcached":  # which counts keys, and looks at the marks as such
        return asked < worker.calls * (MANY if row.case == "many" else 1)
    return asked != worker.calls


def measure_crowd(row: rows.Row, contender: rows.Contender) -> Result:
    """Have several processes read one key while it expires again and again, over a server of their own."""
    with server_of(row) as server, ExitStack() as stack:
        try:
            workers = hired(row, contender, url_of(row, server), stack, PROCESSES)
        except (environments.UnavailableError, WorkerError) as error:
            return {"error": str(error)}
        return {"copies": None} | workers[0].hello | gather(workers, row.rounds)


def hired(row: rows.Row, contender: rows.Contender, url: str, stack: ExitStack, number: int) -> list[Worker]:
    """Start so many workers of a contender, which end with the stack."""
    workers: list[Worker] = []
    for _ in range(number):
        workers.append(Worker(row, contender, url))
        stack.callback(workers[-1].kill)
    if errors := [one.hello["error"] for one in workers if "error" in one.hello]:
        raise WorkerError(errors[0])
    return workers


def gather(workers: list[Worker], rounds: int) -> Result:
    """Let the first worker check what it has, then all of them read; return what came of it."""
    workers[0].tell("check")
    if "error" in (checked := workers[0].hear()):
        return checked
    begin = time.monotonic() + crowd.HEAD_START
    for worker in workers:
        worker.tell(f"{begin} {crowd.end_of(begin, rounds)}")
    return crowd.result([worker.hear() for worker in workers], begin, rounds)


def version_of(server: AnyServer) -> dict[str, str]:
    """Return the version of a server, as those of packages are told."""
    return {server.program.path.name: ".".join(map(str, server.program.version))}


def team_of(
    row: rows.Row, contender: rows.Contender, server: AnyServer, stack: ExitStack
) -> tuple[Team, dict[str, str]]:
    """Start the processes of a contender that share values, and check them; return the versions of what they use."""
    writer, *readers = hired(row, contender, url_of(row, server), stack, 1 + row.processes)
    team = Team(writer, readers, lambda: commands(server)["get"])
    team.check()
    return team, writer.hello["versions"] | version_of(server)


@contextmanager
def noted(results: dict[str, Result], contender: rows.Contender) -> Generator[None]:
    """Make what goes wrong with a contender its result."""
    try:
        yield
    except (environments.UnavailableError, WorkerError) as error:
        results[contender.name] = {"error": str(error)}


def measure_visible(row: rows.Row, contender: rows.Contender) -> Result:
    """Have one process write and another read, over a server of their own."""
    results: dict[str, Result] = {}
    with noted(results, contender), server_of(row) as server, ExitStack() as stack:
        team, versions = team_of(row, contender, cast(AnyServer, server), stack)
        told = team.versions(coherence.FIRST, row.rounds, row.busy)
        if contender.environment == OURS and (stale := told["stale"][0]) > STALENESS:
            raise BenchError(f"{row.name}: a read that began {stale:.2f} s after a write got an older value")
        results[contender.name] = {"versions": versions, "copies": None} | told
    return results[contender.name]


def measure_handoff(row: rows.Row, contender: rows.Contender) -> Result:
    """Have two processes pass a lock to each other, over a server of their own."""
    results: dict[str, Result] = {}
    with noted(results, contender), server_of(row) as server, ExitStack() as stack:
        pair = hired(row, contender, url_of(row, server), stack, 2)
        told = handoff.passes(pair, row.rounds)
        results[contender.name] = {"versions": pair[0].hello["versions"], "copies": None} | told
    return results[contender.name]


def measure_hits(row: rows.Row) -> dict[str, Result]:
    """Have the processes of each contender read near values in turns; another contender begins each round."""
    results: dict[str, Result] = {}
    teams: dict[str, tuple[Team, dict[str, str]]] = {}
    told: dict[str, list[float | None]] = {one.name: [] for one in row.contenders}
    with server_of(row) as server, ExitStack() as stack:
        for one in row.contenders:
            with noted(results, one):
                teams[one.name] = team_of(row, one, cast(AnyServer, server), stack)
        for turn in range(row.rounds):
            for one in rotated([one for one in row.contenders if one.name not in results], turn):
                with noted(results, one):
                    told[one.name].append(teams[one.name][0].block(one.writes))
    for one in [one for one in row.contenders if one.name not in results]:
        with noted(results, one):
            times = coherence.counting(told[one.name])
            results[one.name] = {"versions": teams[one.name][1], "copies": None, row.measure: times}
    return {one.name: results[one.name] for one in row.contenders}


def measure_starts(row: rows.Row) -> dict[str, Result]:
    """Measure how long programs take to begin, each time in a fresh interpreter; one start warms up."""
    results: dict[str, Result] = {}
    for turn in range(row.rounds + 1):
        for contender in row.contenders:
            try:
                python = environments.python_of(contender.environment)
                cpu, wall = started(python, start.program(contender.build))
            except (environments.UnavailableError, subprocess.CalledProcessError) as error:
                results[contender.name] = {"error": str(error)}
                continue
            result = results.setdefault(contender.name, {"versions": {}, "copies": None, "cpu": [], "wall": []})
            if turn == 0:
                result["versions"] = versions(python, contender.packages)
            else:
                result["cpu"].append(cpu)
                result["wall"].append(wall)
    return results


def started(python: Path, program: str) -> tuple[float, float]:
    """Run a program that prints its seconds; return them."""
    done = subprocess.run([python, "-I", "-c", program], env=surroundings(), capture_output=True, text=True, check=True)
    cpu, wall = map(float, done.stdout.split())
    return cpu, wall


def versions(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of packages in an environment."""
    program = (
        "import json, platform, sys; from importlib.metadata import version;"
        "print(json.dumps({'python': platform.python_version()} | {name: version(name) for name in sys.argv[1:]}))"
    )
    command = [str(python), "-I", "-c", program, *packages]
    found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found
