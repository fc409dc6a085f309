"""The file of a near snapshot: what is not in order is not read, what is no snapshot is not replaced."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearcache import Cache, ConfigError, UnsupportedError
from nearcache.near import snapshot
from nearcache.near.snapshot import ABANDONED, KIND, VERSION, SnapshotError, SnapshotFile, _digest, _encoder

ENTRIES = [("users:1", b"a record"), ("users:é", b"\xc1\x00")]
NOW = 1_000.0


@pytest.fixture
def file(tmp_path: Path) -> SnapshotFile:
    return SnapshotFile(tmp_path / "snap", "app redis://h")


def put(file: SnapshotFile, contents: bytes, mode: int = 0o600) -> None:
    file.path.write_bytes(contents)
    file.path.chmod(mode)


def why(do: Callable[[], object]) -> str:
    with pytest.raises(SnapshotError) as error:
        do()
    return str(error.value)


def test_what_is_written_is_read(file):
    assert file.read(NOW) == []
    file.write(ENTRIES, NOW)
    assert file.read(NOW) == ENTRIES
    file.write([], NOW)
    assert file.read(NOW) == []


def test_it_belongs_to_its_user_alone_from_the_first_moment(file, monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.fstat(descriptor).st_mode))
    before = os.umask(0)
    try:
        file.write(ENTRIES, NOW)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(mode) for mode in (*seen, file.path.stat().st_mode)] == [0o600, 0o600]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_what_others_may_touch_is_neither_read_nor_replaced(file, mode):
    file.write(ENTRIES, NOW)
    file.path.chmod(mode)
    assert "other users may read or write it; remove it" in why(lambda: file.read(NOW))
    assert "other users" in why(lambda: file.write([], NOW))


def test_what_belongs_to_another_user_is_not_read(file, monkeypatch):
    file.write(ENTRIES, NOW)
    monkeypatch.setattr(snapshot, "_user_id", lambda: os.geteuid() + 1)
    assert "another user" in why(lambda: file.read(NOW))


def test_a_link_is_not_followed(file, tmp_path):
    there = SnapshotFile(tmp_path / "there", "app redis://h")
    there.write(ENTRIES, NOW)
    file.path.symlink_to(there.path)
    assert "symbolic link" in why(lambda: file.read(NOW))
    assert "symbolic link" in why(lambda: file.write([], NOW))
    assert there.read(NOW) == ENTRIES


def test_a_pipe_is_not_waited_for(file):
    os.mkfifo(file.path, 0o600)
    assert "no regular file" in why(lambda: file.read(NOW))
    assert "no regular file" in why(lambda: file.write([], NOW))


def test_a_folder_is_no_file(file):
    file.path.mkdir(mode=0o700)
    assert "no regular file" in why(lambda: file.read(NOW))
    assert "no regular file" in why(lambda: file.write([], NOW))


def test_a_device_without_end_is_not_read():
    assert "no regular file" in why(lambda: SnapshotFile(Path("/dev/zero"), "").read(NOW))


def test_what_is_no_snapshot_is_neither_read_nor_replaced(file):
    put(file, b"my only copy")
    assert "no near snapshot; remove it" in why(lambda: file.read(NOW))
    assert "no near snapshot; remove it" in why(lambda: file.write(ENTRIES, NOW))
    assert file.path.read_bytes() == b"my only copy"


def test_a_file_of_another_release_is_replaced(file):
    put(file, KIND + b"2" + bytes(100))
    assert "another release" in why(lambda: file.read(NOW))
    file.write(ENTRIES, NOW)
    assert file.read(NOW) == ENTRIES


@pytest.mark.parametrize("origin", ["app redis://g", "apq redis://h", ""])
def test_a_file_of_another_cache_is_not_read(file, origin):
    SnapshotFile(file.path, origin).write(ENTRIES, NOW)
    assert "another url or namespace" in why(lambda: file.read(NOW))


@pytest.mark.parametrize("written", [NOW + 1, float("nan"), float("inf")])
def test_a_file_from_the_future_is_not_read(file, written):
    file.write(ENTRIES, written)
    assert "the clock was set back" in why(lambda: file.read(NOW))


def test_a_file_that_is_too_large_is_not_read(file, monkeypatch):
    file.write(ENTRIES, NOW)
    monkeypatch.setattr(snapshot, "LARGEST", file.path.stat().st_size - 1)
    assert "larger than" in why(lambda: file.read(NOW))


@pytest.mark.parametrize("bound", [200, 500, 1_000, 20_000])
def test_of_what_does_not_fit_the_first_is_written(file, monkeypatch, bound):
    entries = [(f"users:{number}", bytes(50)) for number in range(100)]
    monkeypatch.setattr(snapshot, "LARGEST", bound)
    file.write(entries, NOW)
    found = file.read(NOW)
    assert found == entries[: len(found)]
    assert file.path.stat().st_size <= bound
    assert len(found) >= min(100, (bound - 200) // 100)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    lost = SnapshotFile(tmp_path / "no" / "snap", "")
    assert lost.read(NOW) == []
    assert "its folder must exist" in why(lambda: lost.write(ENTRIES, NOW))


def test_a_disk_that_is_full_leaves_the_old_file_and_no_draft(file, monkeypatch):
    file.write(ENTRIES, NOW)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in why(lambda: file.write([], NOW))
    assert file.read(NOW) == ENTRIES
    assert [each.name for each in file.path.parent.iterdir()] == ["snap"]


KILLED = """
import os, sys, time
from pathlib import Path
from nearcache.near.snapshot import SnapshotFile
def stop(*_):
    print("now", flush=True)
    time.sleep(60)
if sys.argv[2] == "fsync":
    os.fsync = stop
else:
    Path.replace = stop
SnapshotFile(Path(sys.argv[1]), "app redis://h").write([("users:2", b"new")], 1_000.0)
"""


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file(file, at):
    file.write(ENTRIES, NOW)
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(file.path), at], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    with writer, writer.stdout:
        assert writer.stdout.readline() == "now\n"
        writer.send_signal(signal.SIGKILL)
    assert file.read(NOW) == ENTRIES
    (draft,) = [each for each in file.path.parent.iterdir() if each != file.path]

    file.write(ENTRIES, NOW)
    assert draft.exists()  # somebody may be writing it
    old = time.time() - ABANDONED - 1
    os.utime(draft, (old, old))
    file.write(ENTRIES, NOW)
    assert not draft.exists()


def whole(body: bytes) -> bytes:
    return KIND + VERSION + _digest(body) + body


BODIES = st.binary(max_size=200) | st.builds(
    _encoder.encode,
    st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.floats(),
        lambda inner: st.lists(inner, max_size=4),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(contents=st.binary(max_size=300) | BODIES.map(whole) | BODIES.map(lambda body: KIND + VERSION + body))
def test_no_bytes_do_harm(file, contents):
    put(file, contents)
    why(lambda: file.read(NOW))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(data=st.data())
def test_no_change_of_a_file_goes_unnoticed(file, data):
    put(file, b"")
    file.write(ENTRIES, NOW)
    contents = bytearray(file.path.read_bytes())
    if data.draw(st.booleans()):
        contents = contents[: data.draw(st.integers(0, len(contents) - 1))]
    else:
        place = data.draw(st.integers(0, len(contents) - 1))
        contents[place] ^= data.draw(st.integers(1, 255))
    put(file, bytes(contents))
    why(lambda: file.read(NOW))


@pytest.mark.parametrize(
    "absurd", [b"\x93\xc4\x00\xcb" + bytes(8) + b"\xdd\xff\xff\xff\xff", b"\x93\xc6\xff\xff\xff\xff"]
)
def test_absurd_lengths_cost_nothing(file, absurd):
    put(file, whole(absurd))
    assert "damaged" in why(lambda: file.read(NOW))


# The option


@pytest.mark.parametrize("path", ["", 3, b"snap", True, ["snap"], "sn\0ap", Path("sn\0ap")])
def test_a_path_is_a_text(path):
    with pytest.raises(ConfigError, match=r"near_snapshot is .* it must be the path of a file"):
        Cache("redis://h", near_snapshot=path)


def test_where_nothing_can_be_left_the_option_is_refused():
    with pytest.raises(UnsupportedError, match="memory:// cannot do near_snapshot; engines that can"):
        Cache("memory://", near_snapshot="snap")
    with pytest.raises(ConfigError, match="near_snapshot needs a near tier"):
        Cache("redis://h", near_snapshot="snap", near=None)
    with pytest.raises(ConfigError, match="near_snapshot needs a header"):
        Cache("redis://h", near_snapshot="snap", codec="json")
    assert Cache("memory://", near_snapshot=None).get("a:1") is None


def test_caches_of_two_engines_or_namespaces_are_told_apart_and_passwords_do_not_matter(tmp_path):
    def used_by(url: str, namespace: str = "app") -> bytes:
        snapshot = Cache(url, namespace=namespace, near_snapshot=tmp_path / "snap")._parts.core.snapshot
        assert snapshot is not None
        return snapshot._file._origin

    assert used_by("redis://ann:old@h:1/0") == used_by("redis://ann:n@w@h:1/0") == used_by("redis://h:1/0")
    others = ["redis://h:1/0", "redis://h:1/1", "unix:///run/a@x.sock", "unix:///run/b@x.sock", "unix:///run/x.sock"]
    assert len({used_by(url) for url in others} | {used_by("redis://h:1/0", "another")}) == len(others) + 1
