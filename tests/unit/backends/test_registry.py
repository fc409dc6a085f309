"""From URLs to builders."""

import importlib
import subprocess
import sys

import pytest

from nearcache.backends.registry import SCHEMES, BackendSpec, build
from nearcache.errors import ConfigError


def test_an_unknown_scheme_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'rediz'.*redis://") as raised:
        build(BackendSpec("rediz://user:secret@h", "app"), "sync")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("scheme", "extra"), [("redis", "redis"), ("rediss", "redis"), ("unix", "redis"), ("hazelcast", "hazelcast")]
)
def test_a_missing_client_library_is_an_error_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str
):
    def missing(module: str) -> object:
        raise ModuleNotFoundError("No module named 'hiredis'", name="hiredis")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=rf'hiredis: pip install "nearcache\[{extra}\]"'):
        build(BackendSpec(f"{scheme}://h", "app"), "sync")


def test_a_broken_module_of_this_package_is_no_missing_client_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SCHEMES, "redis", "nearcache.backends.nosuch:build")
    with pytest.raises(ModuleNotFoundError, match="nosuch"):
        build(BackendSpec("redis://h", "app"), "sync")


def test_a_spec_shows_no_credentials():
    assert "secret" not in repr(BackendSpec("redis://user:secret@h", "app"))


def test_the_registry_imports_no_client_library():
    code = "import sys, nearcache.backends.registry; sys.exit('redis' in sys.modules or 'hiredis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
