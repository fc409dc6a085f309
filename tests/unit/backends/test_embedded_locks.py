"""File locks end with whoever holds them."""

import os
import time
from pathlib import Path

import pytest

from nearcache.backends.embedded import locks


def soon() -> float:
    return time.monotonic() + 0.02


def test_an_exclusive_lock_keeps_others_out_until_the_block_ends(tmp_path: Path) -> None:
    with (
        locks.exclusive(tmp_path / "lock", soon()),
        pytest.raises(TimeoutError),
        locks.exclusive(tmp_path / "lock", soon()),
    ):
        pass
    with locks.exclusive(tmp_path / "lock", soon()):
        pass


def test_shared_locks_keep_only_exclusive_ones_out(tmp_path: Path) -> None:
    first, second, third = (locks.open_file(tmp_path / "lock") for _ in range(3))
    assert locks.try_shared(first)
    assert locks.try_shared(second)
    assert not locks.try_exclusive(third)
    locks.close(first)
    assert locks.try_exclusive(second)
    assert not locks.try_shared(third)
    locks.release(second)
    assert locks.try_shared(third)
    locks.close(third)


def test_a_closed_descriptor_is_not_closed_again(tmp_path: Path) -> None:
    descriptor = locks.open_file(tmp_path / "lock")
    locks.close(descriptor)
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    assert other == descriptor
    locks.close(descriptor)
    locks.release(descriptor)
    os.fstat(other)
    os.close(other)


def test_descriptors_are_not_inherited_by_programs_and_links_are_not_followed(tmp_path: Path) -> None:
    descriptor = locks.open_file(tmp_path / "lock")
    assert not os.get_inheritable(descriptor)
    locks.close(descriptor)
    (tmp_path / "link").symlink_to(tmp_path / "lock")
    with pytest.raises(OSError, match="symbolic"):
        locks.open_file(tmp_path / "link")


def test_a_deleted_file_is_not_current(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    descriptor = locks.open_file(path)
    assert locks.is_current(descriptor, path)
    path.unlink()
    assert not locks.is_current(descriptor, path)
    path.write_text("")
    assert not locks.is_current(descriptor, path)
    locks.close(descriptor)
