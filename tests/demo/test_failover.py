"""The scene in which a primary is killed: what it reports, and that it would notice what it promises not to happen."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from nearcache import Cache
from nearcache.demo import data, guide, sentinels
from nearcache.demo.atlas import Atlas
from nearcache.demo.scenes import failover
from nearcache.demo.stage import Stage
from tests.promises.helpers import broken


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[failover.Town]:
    """Readers and a writer in front of an engine that is there."""
    data.load(tmp_path / "cities.sqlite")
    monkeypatch.setattr(guide, "atlas", Atlas(tmp_path / "cities.sqlite"))
    ids = guide.atlas.largest(4)
    with Cache("memory://", observers=()) as cache:
        yield failover.Town(cache, ids[:2], ids[2:])


def use(town: failover.Town) -> None:
    with town.busy():
        sentinels.until(lambda: town.acknowledged() >= 4 and town.seen["reads"] > 0, "it is used")


def test_readers_of_a_cache_that_works_get_what_they_should(town: failover.Town) -> None:
    use(town)
    assert town.seen["reads"] > 0
    assert town.seen["errors"] == town.seen["wrong"] == town.seen["queued"] == 0
    assert max(town.loads[city_id] for city_id in town.ids[2:]) == 1


def test_an_invalidation_that_does_nothing_is_noticed(town: failover.Town) -> None:
    with broken(town._city, "invalidate", lambda city_id: 1), town.busy():
        sentinels.until(lambda: town.seen["wrong"] > 0, "somebody reads what was invalidated")


@pytest.mark.parametrize(
    ("seen", "loads", "waiting"), [({"errors": 1}, 1, 0), ({"wrong": 1}, 1, 0), ({}, 9, 0), ({}, 1, 1)]
)
def test_what_is_not_as_promised_is_told(town: failover.Town, seen: dict[str, int], loads: int, waiting: int) -> None:
    stage = Stage(Console(file=io.StringIO()))
    town.seen.update({"reads": 5, "queued": 2, "invalidations": 4})
    town.loads[town.ids[3]] = 1
    failover._report(stage, town, 2.0, 0)
    assert not stage.broken
    town.seen.update(seen)
    town.loads[town.ids[3]] = loads
    failover._report(stage, town, 2.0, waiting)
    assert len(stage.broken) == 1


def test_a_server_that_does_not_start_is_told_of() -> None:
    said = pytest.raises(TimeoutError, match="/bin/false does not start")
    with broken(sentinels, "find", lambda: Path("/bin/false")), said, sentinels.group():
        pass
