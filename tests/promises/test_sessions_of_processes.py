"""Several processes save fields of one session at the same time: none is lost, and none brings it back."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nearcache import Cache
from tests.promises.conftest import NewCache, url_of
from tests.promises.helpers import LIBRARY, eventually, noticed
from tests.servers import CHECKOUT

PROCESSES = 8
TIMES = 25
"""How often each saves."""

FOR_EVER = 1_000_000

SLOW = ("memcached", "hazelcast", "embedded")
ENGINES = ("valkey", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest) -> str:
    """Every kind of engine that processes share."""
    return url_of(request.param, request)


class World:
    """A session, and processes that each save a field of their own."""

    def __init__(self, url: str, new_cache: NewCache) -> None:
        self.order = {"url": url, "namespace": f"p{uuid.uuid4().hex[:10]}"}
        self.cache: Cache = new_cache(url, namespace=self.order["namespace"], near=None)
        self.fields = [f"field {number}" for number in range(PROCESSES)]
        self.id = self.cache.sessions.create({"user_id": 7, **dict.fromkeys(self.fields, 0)}).id

    def save(self, times: int, meanwhile: Callable[[], object] = lambda: None, defect: str = "") -> list[Any]:
        """Have the processes save so often each; return what they have noted."""
        path = f"{Path(LIBRARY).parent}{os.pathsep}{CHECKOUT}"
        with ExitStack() as stack:
            crew = list[subprocess.Popen[str]]()
            for number, field in enumerate(self.fields):
                flavour = ("sync", "async")[number % 2]
                order = {**self.order, "id": self.id, "field": field, "flavour": flavour, "times": times}
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.promises.sessioning", json.dumps({**order, "defect": defect})],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=CHECKOUT,
                    env={**os.environ, "PYTHONPATH": path},
                )
                crew.append(stack.enter_context(process))
                stack.callback(process.kill)
            for process in crew:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in crew:
                print(file=process.stdin, flush=True)
            meanwhile()
            said = [process.communicate(timeout=60)[0] for process in crew]
        assert [process.returncode for process in crew] == [0] * len(crew)
        return [json.loads(text.splitlines()[-1]) for text in said]

    def nothing_is_lost(self, defect: str = "") -> None:
        """Have each save some times; everything that was acknowledged is there."""
        noted = self.save(TIMES, defect=defect)
        assert noted == [{"saved": TIMES, "refused": 0}] * PROCESSES
        left = dict(self.cache.sessions.load(self.id) or {})
        assert left == {"user_id": 7, **dict.fromkeys(self.fields, TIMES)}, "a change is lost"

    def nobody_brings_it_back(self, defect: str = "") -> None:
        """Destroy the session while everybody saves: whoever goes on is refused, and it stays away."""
        noted = self.save(FOR_EVER if not defect else 10 * TIMES, self._destroy, defect)
        assert self.cache.sessions.load(self.id) is None, "a destroyed session is back"
        assert all(each["saved"] and each["refused"] for each in noted)
        assert self.cache.sessions.of(7) == []

    def _destroy(self) -> None:
        eventually(self._all_have_saved, "everybody saves")
        assert self.cache.sessions.destroy(self.id)

    def _all_have_saved(self) -> bool:
        session = self.cache.sessions.load(self.id)
        assert session is not None
        return all(session[field] for field in self.fields)


def test_processes_that_save_at_the_same_time_keep_each_others_fields(url: str, new_cache: NewCache) -> None:
    World(url, new_cache).nothing_is_lost()


def test_no_process_brings_a_destroyed_session_back(url: str, new_cache: NewCache) -> None:
    World(url, new_cache).nobody_brings_it_back()


def test_processes_that_save_everything_are_noticed(valkey_url: str, new_cache: NewCache) -> None:
    with noticed("a change is lost"):
        World(valkey_url, new_cache).nothing_is_lost("everything")


@pytest.mark.slow
def test_processes_that_look_at_nothing_are_noticed(url: str, new_cache: NewCache) -> None:
    with noticed("is back"):
        World(url, new_cache).nobody_brings_it_back("careless")
