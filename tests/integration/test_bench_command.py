"""`nearcache bench` on real engines: beside the bare client, leaving nothing behind, showing no password."""

import json
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from nearcache import Cache
from nearcache.cli import main as cli
from nearcache.cli.measure import bare, blocks, ours
from tests.servers import RedisServer, redis_server

QUICK = ["--seconds", "0.01"]
BESIDE = {"remote-get", "remote-set", "remote-many", "async-one", "async-tasks"}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SECONDS", 0.0005)


def measured(capsys, *arguments: str) -> Any:
    """Run the command with `--json`; return what it printed."""
    assert cli.main(["bench", "--json", *QUICK, *arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def left(server: RedisServer) -> set[bytes]:
    """Return what there is of the bench's namespace, besides the record of the namespace itself."""
    return {*server.command("KEYS", "*nearcache-bench*")} - {b"{nearcache-bench}~m"}


def test_on_the_embedded_engine(capsys, embedded_directory) -> None:
    found = measured(capsys, "--url", f"embedded://{embedded_directory}")
    assert [row["name"] for row in found["rows"]] == list(ours.TITLES)
    with Cache(f"embedded://{embedded_directory}", namespace="any") as cache:
        assert list(cache.scan()) == []


def test_on_a_server_the_bare_client_does_the_same_and_nothing_is_left(capsys, any_server: RedisServer) -> None:
    found = measured(capsys, "--url", any_server.url)
    assert {row["name"] for row in found["rows"] if "ratio" in row} == BESIDE
    assert left(any_server) == set()
    for row in found["rows"]:
        for name in {"nearcache", bare.NAME} & row.keys():
            assert row[name]["blocks"] >= blocks.LEAST_BLOCKS
            assert row[name]["wall_us"]["median"] >= row[name]["wall_us"]["best"] > 0
            assert row[name]["per_second"] > 0


def test_the_variable_leads_to_the_bare_client_too(capsys, monkeypatch, redis_server: RedisServer) -> None:
    monkeypatch.setenv("CACHE_URL", redis_server.unix_url)
    assert {row["name"] for row in measured(capsys)["rows"] if "ratio" in row} == BESIDE


def test_people_get_a_table(capsys, redis_server: RedisServer) -> None:
    assert cli.main(["bench", *QUICK, "--url", redis_server.url]) == 0
    said = capsys.readouterr().out
    assert f"redis://127.0.0.1:{redis_server.port}" in said
    assert all(title in said for title in ours.TITLES.values())
    assert said.count(bare.NAME) == said.count("nearcache takes") == len(BESIDE)


def test_the_password_is_in_no_output(capsys) -> None:
    with redis_server("redis") as server:
        server.command("ACL", "SETUSER", "ali", "on", ">open-sesame", "~*", "&*", "+@all")
        url = f"redis://ali:open-sesame@127.0.0.1:{server.port}/0"
        for arguments in (["--url", url], ["--json", "--url", url]):
            assert cli.main(["bench", *QUICK, *arguments]) == 0
        assert cli.main(["bench", *QUICK, "--url", url.replace("open-sesame", "open-simsim")]) == 1
    said = capsys.readouterr()
    assert f"127.0.0.1:{server.port}" in said.out
    assert "open-s" not in said.out + said.err


def test_a_url_that_the_bare_client_refuses_costs_its_lines_only(capsys, monkeypatch, redis_server) -> None:
    def refusing(*_: object) -> None:
        raise TypeError("secret=1")

    monkeypatch.setattr(bare, "prepared", refusing)
    assert cli.main(["bench", *QUICK, "--url", redis_server.url]) == 0
    said = capsys.readouterr()
    assert said.err == "redis-py + json is not measured: it refuses the URL (TypeError)\n"
    assert bare.NAME not in said.out


def test_nothing_is_left_when_the_preparation_is_interrupted(monkeypatch, redis_server: RedisServer) -> None:
    written = iter(range(3))

    def interrupted(value: object) -> str:
        if next(written, None) is None:
            raise KeyboardInterrupt
        return str(value)

    monkeypatch.setattr(bare, "json", SimpleNamespace(dumps=interrupted, loads=json.loads))
    with suppress(KeyboardInterrupt):
        cli.main(["bench", *QUICK, "--url", redis_server.url])
    assert next(written, None) is None
    assert left(redis_server) == set()


def test_a_bare_key_that_is_gone_is_said_to_be(capsys, monkeypatch, redis_server: RedisServer) -> None:
    real = bare.decoded
    replies = iter(range(5))
    monkeypatch.setattr(bare, "decoded", lambda reply: real(reply if next(replies, None) is not None else None))
    assert cli.main(["bench", *QUICK, "--url", redis_server.url]) == 1
    assert "dropped a key of the bare client" in capsys.readouterr().err
