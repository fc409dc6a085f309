"""Traces are read as they are, figures that cannot be are refused, and page and pictures come from figures alone."""

import gzip
import json
import lzma
import struct
import subprocess
import sys
from array import array
from pathlib import Path
from xml.etree import ElementTree

import pytest
import zstandard

from bench import __main__ as command
from bench import environments, report, results
from bench.contenders import traces as contenders
from bench.parent import BenchError
from bench.rows import US
from bench.traces import catalogue, page, picture, reading, run, verdicts, worker
from bench.traces.catalogue import FIXED, GDSF, OPTIMUM, PUBLIC, TRACES, find
from tests.unit.bench.test_report import checkout
from tools.source import ROOT

GLI = find("gli")


def figures(trace, **points: float) -> dict:
    """Hits in which everybody has 50 percent, nearcache as much as the best, and others by so many points more."""
    hits = {one.name: [50.0 + points.get(one.name, 0)] * len(trace.capacities) for one in trace.contenders}
    hits[OPTIMUM] = [60.0] * len(trace.capacities)
    sizes = [int(1_000 * size) if trace.unit == "bytes" else int(size) for size in trace.capacities]
    made = {"requests": 1_000, "unique": 100, "capacities": sizes, "hits": hits}
    return made | ({"weight": 1_000, "byte hits": hits} if trace.unit == "bytes" else {})


def document(**points: float) -> dict:
    place = {"commit": "abc", "date": "2026-11-25", "cpu": "2 × Some CPU", "system": "Linux 6", "python": "3.11.7"}
    versions = {one.name: {"python": "3.11.7", "made-up": "1.0"} for one in catalogue.CONTENDERS}
    traces = {trace.name: figures(trace, **points) for trace in TRACES}
    return {**place, "minutes": 1.0, "checks": ["It was checked."], "versions": versions, "traces": traces}


# Reading


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("twitter", zstandard.compress(b"# head\n0, 77, 11, 3\n0, 78, 5, 9\n"), [(77, 11), (78, 5)]),
        ("blocks", zstandard.compress(b"5 2 0 0\n9 1 0 1\n"), [(5, 1), (6, 1), (9, 1)]),
        ("disk", zstandard.compress(b"version,time,op,size,lbn\n1,5,2a,512,42\n"), [(42, 1)]),
        ("numbers", lzma.compress(struct.pack(">II", 7, 8)), [(7, 1), (8, 1)]),
        ("lines", gzip.compress(b"3\n*\n4\n"), [(3, 1), (4, 1)]),
    ],
    ids=["twitter", "blocks", "disk", "numbers", "lines"],
)
def test_each_format_is_read(tmp_path, name, content, expected) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    assert list(reading.FORMATS[name](path)) == expected


def test_what_is_played_has_first_seen_sizes_and_the_next_request(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NEARCACHE_TRACES", str(tmp_path))
    trace = find("twitter52-bytes")
    (tmp_path / trace.file).write_bytes(zstandard.compress(b"0, 77, 11, 3\n0, 78, 5, 9\n0, 77, 99, 9\n"))
    ready = reading.prepare(trace, tmp_path / "played")
    assert (ready.requests, ready.unique, ready.weight) == (3, 2, 16)
    assert list(map(list, reading.objects(ready.path))) == [[1, 2, 1], [11, 5, 11]]
    assert [one[3] for one in reading.REQUEST.iter_unpack(ready.path.read_bytes())] == [3, -1, -1]
    assert list(reading.next_requests(array("Q", [7, 8, 7]))) == [3, -1, -1]


def test_traces_lie_where_the_variable_says_or_beside_the_checkout(monkeypatch) -> None:
    monkeypatch.delenv("NEARCACHE_TRACES", raising=False)
    assert reading.folder() == ROOT.parent / "shared" / "traces"
    monkeypatch.setenv("NEARCACHE_TRACES", "/somewhere")
    assert str(reading.folder()) == "/somewhere"


def test_absent_traces_are_skipped_loudly_and_nothing_is_kept(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("NEARCACHE_TRACES", str(tmp_path))
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(report, "write", lambda: None)
    assert command.main(["traces"]) == 0
    said = capsys.readouterr().err
    assert "TRACES NOT PLAYED: OLTP.lis.zst, " in said
    assert f"not in {tmp_path}; set NEARCACHE_TRACES" in said
    assert not (tmp_path / "results").exists()


# Playing


def dictionary(capacity: int) -> contenders.Kept:
    kept: dict[str, int] = {}

    def put(key: str, value: int) -> None:
        if len(kept) < capacity:
            kept[key] = value

    return contenders.Kept(kept.get, put, lambda: len(kept))


def test_hits_and_their_weight_are_counted() -> None:
    assert worker.ask(dictionary(1), ["a", "b", "a", "b"], [3, 1, 3, 1], 1) == (25.0, 37.5)


def test_who_holds_too_much_or_answers_with_another_value_is_found() -> None:
    with pytest.raises(worker.CheatError, match="it holds 2 with room for 1"):
        worker.ask(dictionary(2), ["a", "b"], [1, 2], 1)
    wrong = contenders.Kept(lambda key: 9, lambda key, value: None, lambda: 0)
    with pytest.raises(worker.CheatError, match="the answer for a is 9, not 1"):
        worker.ask(wrong, ["a"], [1], 1)


@pytest.mark.parametrize("by_bytes", [False, True])
def test_nearcache_holds_what_it_may(by_bytes) -> None:
    cache = contenders.nearcache(100, by_bytes)
    hits, _ = worker.ask(cache, [f"objects:{n}" for n in [*range(300)] * 2], [5] * 600, 100)
    assert cache.held() == 100
    assert hits < 50


def test_the_verbs_hold_as_much_as_the_near_tier() -> None:
    keys = [f"objects:{n * n % 97}" for n in range(2_000)]
    values = [int(key.partition(":")[2]) for key in keys]
    tier = worker.ask(contenders.nearcache(20, False), keys, values, 20)
    verbs = worker.ask(contenders.public_nearcache(20, False), keys, values, 20)
    assert verbs == pytest.approx(tier, abs=2)


def test_a_worker_plays_and_says_what_came_of_it(tmp_path) -> None:
    path = tmp_path / "played"
    path.write_bytes(b"".join(reading.REQUEST.pack(at, at % 10, 1, -1) for at in range(100)))
    command_line = [sys.executable, "-m", "bench.traces.worker", str(path), "gli", US, "10", "20"]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["hits"] == [[90.0, said["hits"][0][1]]] * 2
    assert "nearcache" in said["versions"]


def test_a_peer_that_is_not_there_says_so(tmp_path) -> None:
    command_line = [sys.executable, "-m", "bench.traces.worker", str(tmp_path), "gli", "LRU", "10"]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"error": "ModuleNotFoundError: No module named 'libcachesim'"}


def answering(monkeypatch, tmp_path, answer) -> None:
    """Let every contender answer so, without a worker."""
    monkeypatch.setenv("NEARCACHE_TRACES", str(tmp_path))
    (tmp_path / GLI.file).write_bytes(gzip.compress(b"1\n2\n1\n"))
    monkeypatch.setattr(environments, "python_of", lambda name: tmp_path / name)
    monkeypatch.setattr(run, "worked", lambda python, trace, ready, contender: answer(contender.name))


def test_a_peer_that_fails_is_told_of_but_a_policy_has_to_be_there(tmp_path, monkeypatch, capsys) -> None:
    good = {"hits": [[33.333, 0.0]] * len(GLI.capacities), "versions": {"python": "3"}}
    answering(monkeypatch, tmp_path, lambda name: {"error": "no wheel"} if name == "theine" else good)
    found = run.played((GLI,))["traces"]["gli"]
    assert found["hits"]["theine"] == "no wheel"
    assert found["hits"][US] == [33.33] * len(GLI.capacities)
    assert (found["requests"], found["unique"]) == (3, 2)
    assert "NOT MEASURED: no wheel" in capsys.readouterr().out
    answering(monkeypatch, tmp_path, lambda name: {"error": "no wheel"} if name == "LRU" else good)
    with pytest.raises(BenchError, match="gli, LRU: no wheel"):
        run.played((GLI,))


def test_an_environment_that_cannot_be_made_is_told_of(monkeypatch) -> None:
    def unavailable(name: str) -> None:
        raise environments.UnavailableError(f"no {name}")

    monkeypatch.setattr(environments, "python_of", unavailable)
    assert run.all_pythons((GLI,))["policies"] == "no policies"


def test_a_worker_that_dies_is_known_by_its_last_words(tmp_path, monkeypatch) -> None:
    ready = reading.Played(tmp_path / "nothing", 1, 1, 1)
    dead = run.worked(Path("/bin/false"), GLI, ready, GLI.contenders[0])
    assert dead == {"error": "the worker ended without a word"}
    assert run.last_words("Traceback\nMemoryError\n") == "MemoryError"


# Judging


def test_figures_that_others_published_have_to_be_ours_too() -> None:
    found = verdicts.disagreements({"gli": figures(GLI)})
    assert found[0] == "LRU on gli at 253: 50.0, but others published 0.91"
    assert len(found) == 8
    published = figures(GLI)
    for name, value in catalogue.PUBLISHED[("gli", 253)].items():
        published["hits"][name] = [value + 0.05] * len(GLI.capacities)
    assert verdicts.disagreements({"gli": published}) == []
    with pytest.raises(BenchError, match="others published"):
        verdicts.insist(document()["traces"])


def test_nobody_is_better_than_can_be() -> None:
    assert verdicts.above_the_optimum({"gli": figures(GLI, theine=10.4)}) == []
    found = verdicts.above_the_optimum({"gli": figures(GLI, theine=10.6)})
    assert found[0] == "theine on gli at 101: 60.6, but the optimum is 60.0"


def test_the_verbs_have_to_reach_what_the_near_tier_does() -> None:
    apart = figures(GLI)
    apart["hits"][PUBLIC.name] = [50.4, *[49.0] * (len(GLI.capacities) - 1)]
    assert len(verdicts.other_than_its_verbs({"gli": apart})) == len(GLI.capacities) - 1


def test_targets_are_met_or_missed_by_the_figures() -> None:
    assert [one.met for one in verdicts.targets(document(nearcache=1)["traces"])] == [True, True, True]
    assert [one.met for one in verdicts.targets(document()["traces"])] == [True, False, True]
    assert [one.met for one in verdicts.targets(document(ARC=0.6, GDSF=0.1)["traces"])] == [False, False, False]


def test_how_far_one_is_behind_is_told_with_the_place() -> None:
    traces = document()["traces"]
    traces["gli"]["hits"]["2Q"][2] = 53.0
    assert verdicts.behind(traces, US) == verdicts.Behind(3.0, "gli", 253)
    assert "at worst 3.00 behind (gli, 253)" in verdicts.near_the_best(traces).reached


def test_a_mean_is_of_traces_so_that_many_capacities_do_not_weigh_more() -> None:
    traces = document()["traces"]
    traces["web12"]["hits"]["2Q"] = [57.0] * 6
    assert verdicts.mean(traces, "2Q") == pytest.approx(51.0)
    traces["web12"]["hits"]["2Q"] = "no wheel"
    assert verdicts.mean(traces, "2Q") is None


# Showing


def test_the_check_fails_when_page_or_pictures_were_changed(tmp_path, monkeypatch) -> None:
    root = checkout(tmp_path)
    monkeypatch.setattr(report, "ROOT", root)
    monkeypatch.setattr(results, "FOLDER", root / "bench" / "results")
    (root / "bench").mkdir()
    kept = document()
    results.save_traces({name: kept[name] for name in ("checks", "versions", "traces")}, 1.0)
    assert (results.load_traces(root / "bench" / "results") or {})["traces"] == kept["traces"]
    assert results.load(root / "bench" / "results") == {}
    assert len(report.check(root)) == 2 + len(TRACES)
    report.write(root)
    assert report.check(root) == []
    assert "## What a full cache keeps" in (root / "README.md").read_text()
    drawing = root / "docs" / "eviction" / "web12.svg"
    drawing.write_text(drawing.read_text().replace("50", "51"))
    assert [line.partition(":")[0] for line in report.check(root)] == ["docs/eviction/web12.svg"]
    (root / "bench" / "results" / "traces.json").unlink()
    report.write(root)
    assert not (root / "docs" / "eviction.md").exists()


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_a_picture_is_valid_and_has_a_line_and_a_name_for_each_contender(trace) -> None:
    drawn = ElementTree.fromstring(picture.svg(trace, figures(trace)))
    lines = [group for group in drawn.findall("{*}g") if group.find("{*}title") is not None]
    assert {line.findtext("{*}title") for line in lines} == {one.name for one in trace.contenders}
    assert lines[-1].findtext("{*}title") == US
    words = [text.text for text in drawn.findall("{*}text")]
    assert {one.name for one in trace.contenders} <= set(words)


def test_every_contender_looks_different() -> None:
    names = {one.name for trace in TRACES for one in trace.contenders}
    assert names <= picture.LOOKS.keys()
    assert len(set(picture.LOOKS.values())) == len(picture.LOOKS)


def test_a_contender_that_was_not_measured_is_in_no_picture_but_in_the_table() -> None:
    broken = figures(GLI)
    broken["hits"]["theine"] = "no wheel | here"
    assert ">theine<" not in picture.svg(GLI, broken)
    assert "| theine | **not measured**: no wheel ¦ here | – |" in page.table(GLI, broken, "hits")


def test_the_scale_holds_every_value() -> None:
    frame = picture.framed([100, 1_000], [0.3, 61.2])
    assert (frame.low, frame.high, frame.step) == (0, 70, 10)
    assert frame.y(0) == picture.BOTTOM
    assert frame.x(100) < frame.x(316) < frame.x(1_000)


def test_the_page_marks_the_best_and_shows_every_trace_and_check() -> None:
    told = page.page(document(theine=2))
    assert all(f"## {trace.title}" in told for trace in TRACES)
    assert "    - It was checked." in told
    assert "| theine | **52.00** |" in told
    assert f"| {OPTIMUM} | 60.00 |" in told
    assert "**missed**" in told


# The catalogue


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_a_trace_has_capacities_in_order_and_everybody_it_is_judged_by(trace) -> None:
    names = [one.name for one in trace.contenders]
    assert names[0] == US
    assert len(set(names)) == len(names)
    assert {*FIXED, OPTIMUM} <= set(names)
    assert list(trace.capacities) == sorted(trace.capacities)
    assert trace.unit == "bytes" or min(trace.capacities) >= 100
    assert (GDSF in names) is (trace.unit == "bytes")


def test_every_contender_is_built_here_or_a_policy_and_has_pins() -> None:
    for one in {one for trace in TRACES for one in trace.contenders} | {PUBLIC}:
        room = one.build.partition(":")[0]
        assert room == "policy" or hasattr(contenders, room)
        pins = (environments.PINS / f"{one.environment}.txt").read_text()
        assert all(f"{package}==" in pins for package in one.packages if package != "nearcache")


def test_every_published_figure_is_at_a_capacity_that_is_played() -> None:
    for name, capacity in catalogue.PUBLISHED | catalogue.PUBLISHED_BY_BYTES:
        assert capacity in find(name).capacities


def test_traces_are_named_in_the_help_and_are_no_part_of_the_whole() -> None:
    assert "ROW=traces" in command.overview()
    assert results.TRACES not in command.selected("")
