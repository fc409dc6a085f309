"""Loading ahead of readers: in batches, at a pace, again and again; errors do not end it."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nearcache import AsyncCache, BackendUnavailableError, BatchError, Cache, ConfigError, InvalidKeyError, Warmed
from nearcache._core.outcome import Outcome
from nearcache._engine import warm as warm_module
from nearcache._engine.warm import Pace
from nearcache._io.blocking import drive
from nearcache.testing import faults
from tests.faces import Awaited
from tests.promises.helpers import noticed
from tests.servers import RedisServer


@pytest.fixture(params=["sync", "async"])
async def face(request: pytest.FixtureRequest) -> AsyncIterator[Awaited]:
    kind: Any = Cache if request.param == "sync" else AsyncCache
    awaited = Awaited(kind("memory://", observers=()))
    yield awaited
    await awaited.close()


class Table:
    """A source of many rows; notes what it is asked for."""

    def __init__(self, face: Awaited, rows: int = 1_000) -> None:
        self.asked: list[list[str]] = []
        self.rows = {f"a:{number}" for number in range(rows)}
        self.load: Callable[..., Any] = face.loader(self._load)

    def _load(self, keys: list[str]) -> dict[str, str]:
        self.asked.append(keys)
        return {key: f"row {key}" for key in keys if key in self.rows}


def keys(number: int) -> list[str]:
    return [f"a:{each}" for each in range(number)]


async def test_all_keys_are_loaded_in_batches(face: Awaited):
    table = Table(face)
    told = await face.warm(iter(keys(250)), table.load, ttl="1h")
    assert told == Warmed(loaded=250)
    assert told.done == 250
    assert list(map(len, table.asked)) == [100, 100, 50]
    assert await face.get("a:249") == "row a:249"


async def resumes(face: Awaited) -> None:
    """Stop after the second batch, and call again: what was loaded is not loaded again."""
    table = Table(face)

    def stop(told: Warmed) -> None:
        if told.done == 20:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        await face.warm(keys(50), table.load, batch=10, progress=stop)
    assert len(table.asked) == 2
    assert await face.warm(keys(50), table.load, batch=10) == Warmed(fresh=20, loaded=30)
    assert len(table.asked) == 5


async def test_it_goes_on_where_it_was_interrupted(face: Awaited):
    await resumes(face)


async def test_values_that_are_loaded_again_are_noticed(face: Awaited):
    with face.bypass(), noticed():
        await resumes(face)


async def test_progress_is_told_after_each_batch(face: Awaited):
    table, told = Table(face, rows=25), list[Warmed]()
    await face.set("a:3", "cached")
    last = await face.warm(keys(30), table.load, batch=10, progress=told.append)
    assert [each.done for each in told] == [10, 20, 30]
    assert told[-1] == last == Warmed(fresh=1, loaded=24, missing=5)


async def test_a_load_that_fails_does_not_end_it(face: Awaited):
    def load(some: list[str]) -> dict[str, str]:
        if "a:7" in some:
            raise BatchError("one is wrong", {key: "row" for key in some if key != "a:7"}, {"a:7": KeyError("a:7")})
        if "a:10" in some:
            raise ConnectionError("the table is away")
        return dict.fromkeys(some, "row")

    told = await face.warm(keys(30), face.loader(load), batch=10)
    assert (told.loaded, told.failed) == (19, 11)
    assert isinstance(told.errors["a:7"], KeyError)
    assert isinstance(told.errors["a:19"], ConnectionError)
    assert len(told.errors) == 11


async def test_not_all_of_many_errors_are_kept(face: Awaited):
    def load(_some: list[str]) -> dict[str, str]:
        raise ConnectionError("the table is away")

    told = await face.warm(keys(250), face.loader(load))
    assert (told.failed, len(told.errors)) == (250, warm_module.MOST_ERRORS)


async def test_tags_ttl_and_options_are_those_of_loads(face: Awaited):
    table = Table(face)
    await face.warm(["a:1"], table.load, ttl="1m", tags=["t:1"], fail_safe="1h")
    assert 50 < await face.ttl("a:1") <= 60
    await face.invalidate_tags("t:1")
    assert await face.get("a:1") is None
    assert await face.warm(["a:1", "a:1"], table.load) == Warmed(loaded=1), "each once"
    with pytest.raises(TypeError, match="no option 'fresh'"):
        await face.warm(["a:1"], table.load, fresh=True)


class Watch:
    """Time that passes where somebody waits, and a quarter of a second in each batch; notes who waits for how long."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    async def wait(self, _event: object, until: Callable[[], float]) -> bool:
        self.waits.append(max(0.0, until() - self.now))
        self.now = max(self.now, until())
        return False

    async def ask(self, some: list[str], load: Callable[[list[str]], Any]) -> dict[str, Outcome[Any]]:
        self.now += 0.25
        load([key for key in some if key != "a:0"])  # which is fresh
        return {key: Outcome(key) for key in some}

    async def ready(self) -> None: ...


def test_the_pace_is_kept(monkeypatch: pytest.MonkeyPatch):
    """Ten keys a second: what a batch has loaded has to be waited for, less the time that it took."""
    watch = Watch()
    monkeypatch.setattr(warm_module, "time", SimpleNamespace(monotonic=lambda: watch.now))
    io: Any = watch
    told = drive(warm_module.warm(io, watch.ask, keys(30), lambda some: some, Pace(100, 10), watch.ready, None))
    assert told == Warmed(fresh=1, loaded=29)
    assert watch.waits == pytest.approx([0.65, 0.75, 0.75])


def test_a_wrong_pace_is_refused():
    for batch in (0, 10_001, 1.5, True, "10"):
        with pytest.raises(ConfigError, match=r"batch is .*whole number from 1 to 10000"):
            Pace(batch, None)  # type: ignore[arg-type]
    for rate in (0, -1, float("inf"), float("nan"), True, "10"):
        with pytest.raises(ConfigError, match="per_second is"):
            Pace(100, rate)  # type: ignore[arg-type]
    assert Pace(100, 0.5).seconds(1) == 2.0
    assert list(map(len, Pace(100, 0.5).batches(keys(3)))) == [1, 1, 1]
    assert list(map(len, Pace(2, None).batches(keys(3)))) == [2, 1]


async def test_what_are_no_keys_is_refused(face: Awaited):
    table = Table(face)
    with pytest.raises(InvalidKeyError, match="not a str"):
        await face.warm("a:1", table.load)
    with pytest.raises(InvalidKeyError):
        await face.warm(["a b"], table.load)
    with pytest.raises(TypeError, match="loader_many is of type int"):
        await face.warm(["a:1"], 7)
    with pytest.raises(TypeError, match="progress is of type int"):
        await face.warm([], table.load, progress=7)
    assert table.asked == []


async def test_without_an_engine_nothing_is_loaded(face: Awaited):
    table = Table(face)
    with faults(face.cache) as engine:
        engine.down()
        with pytest.raises(BackendUnavailableError):
            await face.warm(keys(30), table.load)
        assert table.asked == []


async def test_an_engine_that_is_lost_ends_it(face: Awaited):
    table = Table(face)
    with faults(face.cache) as engine:

        def lose_it(told: Warmed) -> None:
            if told.done == 20:
                engine.down()

        with pytest.raises(BackendUnavailableError):
            await face.warm(keys(30), table.load, batch=10, progress=lose_it)
        assert len(table.asked) <= 3
        engine.up()
        assert (await face.warm(keys(30), table.load)).fresh == 20


@pytest.fixture
def shared(valkey_server: RedisServer) -> Iterator[tuple[Cache, Cache]]:
    namespace = f"w{os.urandom(5).hex()}"
    with (
        Cache(valkey_server.unix_url, namespace=namespace, observers=()) as one,
        Cache(valkey_server.unix_url, namespace=namespace, observers=()) as two,
    ):
        yield one, two


def test_what_one_process_warms_is_there_for_all(shared: tuple[Cache, Cache]):
    one, two = shared
    assert one.warm(keys(30), lambda some: dict.fromkeys(some, "row")).loaded == 30
    assert two.warm(keys(40), lambda some: dict.fromkeys(some, "again")) == Warmed(fresh=30, loaded=10)
    assert two.get("a:1") == "row"
