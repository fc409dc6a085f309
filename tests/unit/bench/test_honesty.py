"""What keeps the bench honest: the checks hold, and calls that were not what they should be are found."""

import json
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from bench import checks, parent, rows
from bench.worker import copied
from tools.source import ROOT

ROW = rows.find("remote-get")
HONEST = {"expected": 300, "counted": {"stats().hits": 300}, "loads": 0, "expected_loads": None}


def worker(**commands: int):
    return SimpleNamespace(calls=300, commands=Counter(commands))


def test_the_checks_against_cheating_hold() -> None:
    assert len(checks.run()) == len(checks.CHECKS)


def test_an_honest_worker_passes() -> None:
    assert parent.dishonest(ROW, worker(get=300), HONEST) is None


@pytest.mark.parametrize(
    ("commands", "said", "problem"),
    [
        ({"get": 300}, {"counted": {"stats().hits": 299}}, "stats().hits grew by 299"),
        ({"get": 299}, {}, "the server counted 299 × get with 300 calls"),
        ({"mget": 3}, {}, "the server counted 0 × get"),
        ({"get": 300}, {"loads": 300, "expected_loads": 1}, "the function ran 300 times"),
    ],
)
def test_a_dishonest_worker_is_found(commands, said, problem) -> None:
    assert problem in (parent.dishonest(ROW, worker(**commands), HONEST | said) or "")


@pytest.mark.parametrize(
    ("name", "command", "number", "honest"),
    [
        ("remote-get", "get", 301, False),
        ("memcached-get", "get", 299, False),
        ("memcached-get", "get", 301, True),  # with a look at the marks
        ("memcached-many", "get", 29_999, False),
        ("memcached-many", "get", 30_001, True),
    ],
)
def test_commands_are_counted_as_the_server_counts_them(name, command, number, honest) -> None:
    assert (parent.dishonest(rows.find(name), worker(**{command: number}), HONEST) is None) == honest


def test_samples_are_for_each_call() -> None:
    samples = parent.Samples()
    samples.add(10, 1.0, 2.0, 50.0)
    assert (samples.of("cpu"), samples.of("wall"), samples.of("bytes")) == ([0.1], [0.2], [5.0])


def test_copies_are_told_from_shared_dicts() -> None:
    inner, flat = {"tags": ["a"]}, {"a": 1}
    assert copied(49, 49) is None
    assert copied(flat, flat) == "shared"
    assert copied(flat, dict(flat)) == "deep"
    assert copied(inner, dict(inner)) == "shallow"
    assert copied(inner, {"tags": ["a"]}) == "deep"


def test_workers_get_no_settings_of_caches_and_the_same_hashes(monkeypatch) -> None:
    monkeypatch.setenv("CACHE_NEAR", "1")
    assert "CACHE_NEAR" not in parent.surroundings()
    assert parent.surroundings()["PYTHONHASHSEED"] == "0"


def test_a_worker_counts_times_and_says_goodbye() -> None:
    command = [sys.executable, "-m", "bench.worker", "near-int", "functools.lru_cache"]
    done = subprocess.run(command, cwd=ROOT, input="100\n50\n", capture_output=True, text=True, check=True)
    hello, *blocks, goodbye = done.stdout.splitlines()
    assert json.loads(hello)["copies"] is None
    assert all(len(list(map(float, block.split()))) == 3 for block in blocks)
    assert len(blocks) == 2
    assert json.loads(goodbye) == {"expected": 150, "counted": {}, "loads": 1, "expected_loads": 1}


def test_a_peer_that_is_not_there_says_so() -> None:
    command = [sys.executable, "-m", "bench.worker", "near-int", "cachebox"]
    done = subprocess.run(command, cwd=ROOT, input="100\n", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"error": "ModuleNotFoundError: No module named 'cachebox'"}
