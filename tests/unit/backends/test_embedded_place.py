"""The directories of embedded servers belong to their user alone."""

import json
import os
from pathlib import Path

import pytest

from nearcache.backends.embedded import place
from nearcache.backends.embedded.place import Place, Record, place_of
from nearcache.errors import ConfigError


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "TEMPORARY", tmp_path)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_directories_are_made_for_this_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place_of(None).prepare()
        place_of(tmp_path / "deep" / "data").prepare()
    finally:
        os.umask(before)
    assert mode(place_of(None).runtime) == 0o700
    assert mode(place_of(None).home) == 0o700
    assert mode(tmp_path / "deep" / "data") == 0o700


def test_all_servers_of_a_user_have_their_sockets_in_one_directory_with_a_short_name(tmp_path: Path) -> None:
    memory, data = place_of(None), place_of(tmp_path / ("a" * 50))
    assert memory.new_socket().parent == data.new_socket().parent == tmp_path / f"nearcache-{os.geteuid()}"
    assert memory.new_socket() != memory.new_socket()
    # With /tmp in front the path must fit into 100 bytes, also for the largest user id.
    assert len(str(memory.new_socket().relative_to(tmp_path))) < 60


def refused(one: Place, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        one.prepare()


def test_a_runtime_directory_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = place_of(None)
    one.prepare()
    monkeypatch.setattr(place, "user_id", lambda: os.geteuid() + 1)
    refused(one, "belongs to another user")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_data_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, 54321, 54321)
    refused(place_of(data), "belongs to another user")


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    refused(place_of(data), "chmod 700")
    data.chmod(0o755)
    place_of(data).prepare()


def test_a_runtime_directory_that_others_may_read_is_refused() -> None:
    one = place_of(None)
    one.prepare()
    one.runtime.chmod(0o755)
    refused(one, "chmod 700")


def test_a_symbolic_link_or_a_file_in_place_of_the_runtime_directory_is_refused(tmp_path: Path) -> None:
    one = place_of(None)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    one.runtime.symlink_to(tmp_path / "elsewhere")
    refused(one, "to be a directory")
    one.runtime.unlink()
    one.runtime.write_text("")
    refused(one, "to be a directory")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(place_of(tmp_path / "file" / "data"), "file")


def test_the_record_is_replaced_as_a_whole_and_an_unreadable_one_is_none() -> None:
    one = place_of(None)
    one.prepare()
    assert one.read() is None
    record = Record(one.new_socket(), keep=True)
    one.write(record)
    assert one.read() == record
    assert mode(one.home / "server.json") == 0o600
    for text in ("", "{", "[]", "null", json.dumps({"socket": 1, "keep": True, "ending": False}), '{"socket": "/s"}'):
        (one.home / "server.json").write_text(text)
        assert one.read() is None
