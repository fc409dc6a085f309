"""An examination notices an engine that does not do what it says, and one that has not everything."""

from typing import Any

import pytest

from nearcache import BackendTimeoutError, Cache, _checkup
from nearcache._checkup import examine
from nearcache.backends.memory import Ledger, MemoryBackend
from nearcache.backends.registry import build


def works(cache: Cache) -> dict[str, tuple[bool | None, str]]:
    """Return by name whether it works, and what was found."""
    return {check.name: (check.works, check.found) for check in examine(cache)}


async def nothing(*_: object) -> Any:
    """Do nothing."""


async def nobody(*_: object) -> int:
    """Say that there was nothing to delete."""
    return 0


@pytest.mark.parametrize(
    ("verb", "answer", "said"),
    [
        ("get", nothing, "what was stored is not what is there"),
        ("touch", nothing, "what was stored cannot be touched"),
        ("delete", nobody, "what was stored cannot be deleted"),
        ("add", nothing, "what was deleted cannot be added"),
    ],
)
def test_a_verb_that_does_nothing_is_noticed(monkeypatch, verb, answer, said) -> None:
    monkeypatch.setattr(MemoryBackend, verb, answer)
    assert works(Cache("memory://"))["values"] == (False, said)


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("steal", "a right to load that was lost counts"),
        ("commit", "a right to load that was taken does not count"),
    ],
)
def test_a_lease_that_binds_nobody_is_noticed(monkeypatch, verb, said) -> None:
    monkeypatch.setattr(Ledger, verb, nothing)
    assert works(Cache("memory://"))["leases"] == (False, said)


@pytest.mark.parametrize(("patience", "right"), [(60.0, True), (0.0, False)])
def test_an_engine_that_has_just_started_may_take_its_time_for_the_first_answer(monkeypatch, patience, right) -> None:
    late = [BackendTimeoutError("no answer within 1 s")] * 2

    async def ping(_: MemoryBackend) -> None:
        if late:
            raise late.pop()

    monkeypatch.setattr(MemoryBackend, "ping", ping)
    monkeypatch.setattr(_checkup, "WARM_UP", patience)
    assert works(Cache("memory://"))["connection"][0] is right


def test_an_engine_need_not_count_or_list(monkeypatch) -> None:
    def without(*args: Any) -> Any:
        backend = build(*args)
        backend.counters = backend.scan = None
        return backend

    monkeypatch.setattr(_checkup, "build", without)
    found = works(Cache("memory://"))
    assert (found["counters"][0], found["scan"][0], found["values"][0]) == (None, None, True)


def test_values_for_other_languages_are_examined_too() -> None:
    assert {name for name, (right, _) in works(Cache("memory://", codec="json")).items() if right is False} == set()
