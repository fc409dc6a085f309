"""Metrics of several processes, in Prometheus' multiprocess mode."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

WORKER = """
import os, sys
from nearcache._core.events import Command, EngineSize, Hit
from nearcache.near.store import Limit, Store
from nearcache.observe.prometheus import Prometheus

store = Store(Limit(bytes=100_000), lambda: 0.0)
store.keep("users:1", "value", None, 1.0, 100, store.stamp("users:1"))
listener = Prometheus("app", store)

def near_hits(times):
    for _ in range(times):
        store.lookup("users:1")

def called():
    listener.on(Command("get", 0.001, False))
"""


@pytest.fixture
def run(tmp_path):
    def start(script: str, folder: Path = tmp_path) -> None:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", WORKER + script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr

    return start


@pytest.fixture
def read(tmp_path) -> Callable[..., float]:
    def total(name: str, **labels: str) -> float:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(tmp_path))
        samples = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
        return sum(each.value for each in samples if labels.items() <= each.labels.items())

    return total


def test_two_processes_add_up(run, read):
    for _ in range(2):
        run("listener.on(Hit('users', 'engine')); near_hits(5); called()")
    assert read("cache_hits_total", tier="engine") == 2
    assert read("cache_hits_total", tier="near") == 10
    assert read("cache_latency_seconds_count", operation="get") == 2


def test_near_hits_are_told_at_each_call_to_the_engine(run, read):
    run("near_hits(3); called(); near_hits(4); called(); os._exit(0)")
    assert read("cache_hits_total", tier="near") == 7


def test_near_hits_are_told_at_exit(run, read):
    run("called(); near_hits(5)")
    assert read("cache_hits_total", tier="near") == 5


def test_sizes_are_those_of_each_process(run, read):
    run("listener.on(EngineSize(700, 1_000)); called(); os._exit(0)")
    assert read("cache_size_bytes", tier="engine") == 700
    assert read("cache_size_bytes", tier="near") > 500
    assert read("cache_limit_bytes", tier="near") == 100_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no os.fork")
@pytest.mark.parametrize("first", ["parent", "child"])
def test_near_hits_of_workers_that_multiprocessing_forks_are_told_at_exit(run, read, first):
    run(
        f"""
import multiprocessing

def work():
    store.after_fork()
    called()
    near_hits(5)

if "{first}" == "parent":
    called()
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
assert child.exitcode == 0
near_hits(2)
called()
"""
    )
    assert read("cache_hits_total", tier="near") == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no os.fork")
def test_a_forked_worker_counts_only_what_it_did_itself(run, read):
    run(
        """
called()
near_hits(5)
if (child := os.fork()) == 0:
    store.after_fork()
    near_hits(2)
    called()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
called()
"""
    )
    assert read("cache_hits_total", tier="near") == 7
    assert read("cache_latency_seconds_count", operation="get") == 3


def test_nothing_is_imported_or_written_before_the_first_event(run, tmp_path):
    run("near_hits(5); assert 'prometheus_client' not in sys.modules")
    assert list(tmp_path.iterdir()) == []


def test_the_ordinary_registry_shows_latencies_too(run):
    run(
        """
from prometheus_client import REGISTRY, generate_latest
called()
assert b'cache_latency_seconds_count{namespace="app",operation="get"} 1.0' in generate_latest(REGISTRY)
"""
    )
