"""Numbers, ratios and verdicts come from samples by the rules that docs/benchmarks.md tells."""

import functools
from dataclasses import replace

import pytest

from bench import judge, rows
from bench.rows import BEST, BEST_WITH_TTL, US, Contender, Target

ROW = replace(
    rows.find("near-int"),
    contenders=(
        Contender(US, "", "", ()),
        Contender("no-ttl", "", "", (), ttl=False),
        Contender("slow", "", "", ()),
        Contender("quick", "", "", ()),
    ),
)
RUN = {US: {"wall": [3.0, 1.0]}, "no-ttl": {"wall": [0.5]}, "slow": {"wall": [8.0]}, "quick": {"wall": [4.0, 9.0]}}


def test_the_smallest_block_counts_and_of_starts_the_median() -> None:
    assert judge.number(ROW, {"wall": [3.0, 1.0, 2.0]}) == 1.0
    assert judge.number(rows.find("import"), {"wall": [3.0, 1.0, 2.0]}) == 2.0
    assert judge.number(ROW, {"error": "it is broken"}) is None


def test_commands_that_come_once_in_a_while_make_no_difference_and_those_of_each_call_do() -> None:
    row = rows.find("tags-miss")
    number = functools.partial(judge.number, row)
    assert number({"commands": [13.0, 13.01, 13.0]}) == number({"commands": [13.03, 13.0, 13.0]}) == 13.0
    assert number({"commands": [13.0, 14.0, 14.0]}) == 14.0


def test_a_ratio_is_what_we_take_divided_by_what_they_take() -> None:
    assert judge.ratio(ROW, RUN, "quick") == 0.25
    assert judge.ratio(ROW, RUN, "quick", throughput=True) == 4.0
    assert judge.ratio(ROW, RUN, "nobody") is None


def test_the_best_peer_with_a_ttl_is_neither_us_nor_one_without() -> None:
    assert judge.opponent(ROW, RUN, Target(BEST_WITH_TTL, 0.5)) == "quick"
    assert judge.opponent(ROW, {US: RUN[US]}, Target(BEST_WITH_TTL, 0.5)) is None
    assert judge.opponent(ROW, RUN, Target(BEST, 0.5)) == "no-ttl"


@pytest.mark.parametrize(
    ("limit", "throughput", "runs", "expected"),
    [
        (0.25, False, 3, "met"),
        (0.24, False, 3, "missed"),
        (4, True, 3, "met"),
        (4.1, True, 3, "missed"),
        (0.25, False, 1, "met in 1 of the 3 runs that it takes"),
        (0.25, False, 0, "not measured"),
    ],
)
def test_a_target_is_met_when_three_runs_in_a_row_meet_it(limit, throughput, runs, expected) -> None:
    assert judge.judge(ROW, [RUN] * runs, Target("quick", limit, throughput=throughput)).verdict == expected


def test_one_bad_run_misses_the_target() -> None:
    bad = RUN | {US: {"wall": [2.0]}}
    found = judge.judge(ROW, [RUN, bad, RUN], Target(BEST_WITH_TTL, 0.4))
    assert found.verdict == "missed"
    assert found.ratios == (0.25, 0.5, 0.25)
    assert found.against == "quick"


def test_a_target_whose_peer_is_broken_is_not_met() -> None:
    broken = RUN | {"quick": {"error": "no wheel"}}
    assert judge.judge(ROW, [RUN, RUN, broken], Target("quick", 9)).verdict == "not measured"
