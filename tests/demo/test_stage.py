"""What the demo shows, and how it ends."""

import io
from types import ModuleType

import pytest
from rich.console import Console

from nearcache.demo import show
from nearcache.demo.scenes import metrics
from nearcache.demo.stage import Stage, duration


@pytest.fixture
def stage():
    return Stage(Console(file=io.StringIO(), width=80))


def shown(stage):
    return stage.console.file.getvalue()


def scene(play):
    module = ModuleType("scene", "A scene.")
    setattr(module, "play", play)  # noqa: B010  # mypy knows no such attribute
    return module


@pytest.fixture
def play_only(monkeypatch, stage):
    """Have a show with one scene, and without data."""

    def run(play):
        monkeypatch.setenv("CACHE_URL", "memory://")
        monkeypatch.setattr(show, "Stage", lambda _: stage)
        monkeypatch.setattr(show, "_introduce", lambda _: None)
        monkeypatch.setattr(show, "SCENES", {"Only": scene(play)})
        return show.run(once=True)

    return run


def test_the_exit_code_is_0_when_everything_holds(play_only, stage):
    assert play_only(lambda stage: stage.report("queries", 1, holds=True)) == 0
    assert "Everything is as promised" in shown(stage)


def test_the_exit_code_is_1_when_a_finding_does_not_hold(play_only, stage):
    assert play_only(lambda stage: stage.report("queries", 2, holds=False)) == 1
    assert "NO" in shown(stage)


def test_the_exit_code_is_1_when_a_scene_fails(play_only, stage):
    def play(stage):
        raise RuntimeError("no such city")

    assert play_only(play) == 1
    assert [finding.measured for finding in stage.broken] == ["RuntimeError"]


def test_a_number_that_nobody_promised_breaks_nothing(stage):
    stage.report("hit ratio", "12 %")
    assert stage.broken == []


def test_the_table_names_each_scene_once(stage):
    for name in ("One", "Two"):
        stage.begin(name, "")
        stage.report("reads", 5)
        stage.report("writes", 6)
    table = Stage(Console(file=io.StringIO(), width=80))
    table.console.print(stage.table())
    assert [shown(table).count(text) for text in ("One", "Two", "reads", "writes")] == [1, 1, 2, 2]


def test_a_tracked_iteration_yields_everything(stage):
    assert list(stage.track(iter("abc"), "letters", 3)) == ["a", "b", "c"]


def test_every_scene_says_what_it_shows():
    assert all((module.__doc__ or "").strip() and callable(module.play) for module in show.SCENES.values())


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2 s"), (0.5, "500 ms"), (1e-3, "1 ms"), (5.39e-6, "5.39 µs"), (4e-8, "40 ns")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


PAGE = """\
# TYPE cache_latency_seconds histogram
cache_latency_seconds_bucket{operation="get",le="0.001"} 4.0
cache_latency_seconds_bucket{operation="get",le="0.01"} 6.0
cache_latency_seconds_bucket{operation="get",le="+Inf"} 10.0
cache_latency_seconds_bucket{operation="load",le="+Inf"} 10.0
"""


def test_the_median_comes_from_the_buckets_of_the_operation():
    assert metrics._median(PAGE, "get") == 0.01
