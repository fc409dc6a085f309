"""`nearcache bench` times what it says, checks it before, and tells what is wrong."""

import json
from argparse import Namespace
from asyncio import Runner
from contextlib import ExitStack
from typing import Any

import pytest

from nearcache import Cache, CacheError
from nearcache.cli import bench
from nearcache.cli import main as cli
from nearcache.cli.measure import bare, blocks, ours
from nearcache.cli.measure.blocks import MeasureError, Taken, Work
from tests.servers import free_port

QUICK = ["--seconds", "0.01"]


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SECONDS", 0.0005)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch) -> None:
    monkeypatch.delenv("CACHE_URL", raising=False)


def measured(capsys, *arguments: str) -> Any:
    """Run the command with `--json`; return what it printed."""
    assert cli.main(["bench", "--json", *QUICK, *arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def test_in_memory_there_is_no_bare_client(capsys) -> None:
    found = measured(capsys, "--url", "memory://")
    assert [row["name"] for row in found["rows"]] == list(ours.TITLES)
    assert all("ratio" not in row for row in found["rows"])
    assert found["cache"].startswith("Cache('memory://', namespace='nearcache-bench'")
    assert found["versions"].keys() >= {"nearcache", "msgspec"}


def test_an_engine_that_is_not_there_is_one_line_and_1(capsys) -> None:
    port = free_port()
    assert cli.main(["bench", "--url", f"redis://:secret@127.0.0.1:{port}/0"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"nearcache bench: cannot reach the engine at 127.0.0.1:{port}")
    assert said.err.count("\n") == 1
    assert "secret" not in said.err


@pytest.mark.parametrize("url", ["foo://host", "hazelcast://host", "redis://host:port/0", ""])
def test_a_bad_url_is_2(capsys, url) -> None:
    assert cli.main(["bench", "--url", url]) == 2
    assert capsys.readouterr().err.startswith("nearcache bench: ")


def test_a_cache_that_is_turned_off_is_told_of(capsys, monkeypatch) -> None:
    monkeypatch.setenv("CACHE_ENABLED", "false")
    assert cli.main(["bench", *QUICK, "--url", "memory://"]) == 1
    assert "is caching turned off (CACHE_ENABLED)" in capsys.readouterr().err


def test_without_redis_py_there_is_no_bare_client(monkeypatch) -> None:
    monkeypatch.setattr(bare, "find_spec", lambda name: None)
    with Runner() as runner, ExitStack() as stack:
        assert bare.works("redis://127.0.0.1:1/0", "any", runner, stack) == {}
    assert bare.errors() == ()


def test_a_bare_client_that_fails_is_an_error_with_the_row() -> None:
    (error,) = bare.errors()

    def failing(n: int) -> None:
        raise error("gone")

    work = Work(failing, lambda: 1, 1)
    with pytest.raises(MeasureError, match="set: gone"):
        list(bench.measured({"remote-set": work}, {}, 0.01))


def test_what_cannot_be_removed_is_left_to_expire(monkeypatch) -> None:
    def away(*_: object) -> None:
        raise CacheError("away")

    cache = Cache("memory://")
    monkeypatch.setattr(cache, "delete_many", away)
    bench.removed(cache)

    class Client:
        def delete(self, *names: str) -> None:
            raise bare.errors()[0]("away")

    bare.removed(Client(), ["a"])


@pytest.mark.parametrize("answer", [2, True, None])
def test_a_wrong_answer_is_not_timed(answer) -> None:
    with pytest.raises(MeasureError, match="not what was stored"):
        blocks.check(Work(lambda n: None, lambda: answer, 1))


def test_calls_that_were_no_hits_are_found() -> None:
    hits = [0]

    def block(n: int) -> None:
        hits[0] += n - 1
        sum(range(1_000 * n))

    with pytest.raises(MeasureError, match=r"\d+ reads were \d+ hits"):
        blocks.in_turns([Work(block, lambda: 1, 1, lambda: hits[0])], 0.001)


def test_blocks_take_turns_and_are_multiples_of_the_step() -> None:
    seen: list[tuple[str, int]] = []

    def work(name: str) -> Work:
        def block(n: int) -> None:
            seen.append((name, n))
            sum(range(1_000 * n))

        return Work(block, lambda: 1, 1, step=100)

    taken = blocks.in_turns([work("a"), work("b")], 1e-9)
    assert all(n % 100 == 0 for _, n in seen)
    assert [name for name, _ in seen[-2 * blocks.LEAST_BLOCKS :]] == list("abbaabbaab")
    assert [len(one.wall) for one in taken] == [blocks.LEAST_BLOCKS] * 2


def test_figures_come_from_blocks() -> None:
    one, other = Taken((3e-6, 1e-6, 2e-6), (2e-6, 2e-6, 1e-6)), Taken((4e-6,), (4e-6,))
    assert (one.of_wall, one.of_cpu) == ((2e-6, 1e-6), (2e-6, 1e-6))
    assert one.per_second == pytest.approx(500_000)
    assert bench.ratios(one, other) == (0.25, 0.25)
    text = bench.row_text(bench.Row("set", "set", one, other))
    assert "500,000         2.00 (1.00)         2.00 (1.00)" in text
    assert text.endswith("0.25 ×              0.25 ×")


def test_packages_that_are_not_there_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(bench, "PACKAGES", ("nearcache", "no-such-package"))
    assert bench.versions().keys() == {"nearcache"}


def test_only_the_url_is_looked_at_for_the_bare_client(monkeypatch) -> None:
    assert bench.url_of(Namespace(url="redis://a")) == "redis://a"
    assert bench.url_of(Namespace(url=None)) == ""
