"""The list of rows agrees with itself, with the pins and with the contenders that exist."""

import re
from importlib import import_module

import pytest

from bench import environments, rows
from bench.contenders.start import PROGRAMS
from bench.work import KEYS_OF_A_TASK, TASKS, THREADS, cases


def test_names_are_unique_and_every_group_has_rows() -> None:
    assert len({row.name for row in rows.ROWS}) == len(rows.ROWS)
    assert {row.group for row in rows.ROWS} == set(rows.GROUPS)
    assert not {row.name for row in rows.ROWS} & (set(rows.GROUPS) - {"eviction", "memory", "import"})


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_a_row_begins_with_nearcache_and_its_targets_name_peers(row) -> None:
    names = [one.name for one in row.contenders]
    assert names[0] == rows.US
    assert len(set(names)) == len(names)
    assert {target.against for target in row.targets} <= {*names[1:], rows.BEST, rows.BEST_WITH_TTL, rows.ONE}


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_every_contender_has_a_builder_and_pinned_packages(row) -> None:
    for one in row.contenders:
        room, _, name = one.build.partition(":")
        assert hasattr(import_module(f"bench.contenders.{room}"), name) if name else room in PROGRAMS
        pins = (environments.PINS / f"{one.environment}.txt").read_text()
        for package in set(one.packages) - {"nearcache"}:
            assert re.search(rf"^{re.escape(package.replace('.', '-'))}==", pins, re.MULTILINE), package


@pytest.mark.parametrize("row", rows.of_group("near"), ids=lambda row: row.name)
def test_near_rows_have_enough_rounds_of_big_blocks(row) -> None:
    assert row.rounds >= 100
    assert row.calls >= 5_000
    assert row.case == "store" or row.case in cases()


def test_the_blocks_of_tasks_and_threads_come_out_even() -> None:
    assert {row.calls for row in rows.ROWS if row.case == "tasks"} == {TASKS * KEYS_OF_A_TASK}
    assert all(row.calls % THREADS == 0 for row in rows.ROWS if row.case == "threads")


def test_pins_name_no_index_and_cover_what_is_wanted() -> None:
    for name, wanted in environments.REQUIREMENTS.items():
        pins = (environments.PINS / f"{name}.txt").read_text()
        assert "://" not in pins
        assert all(re.match(r"[a-z0-9-]+==\d", line) for line in pins.splitlines())
        for requirement in wanted:
            package = requirement.partition("[")[0].replace(".", "-")
            assert re.search(rf"^{package}==", pins, re.MULTILINE), package
