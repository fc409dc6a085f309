"""What an embedded:// URL may say."""

from pathlib import Path

import pytest

from nearcache.backends.embedded.settings import Settings, parse
from nearcache.errors import ConfigError

MIB = 1024 * 1024


def test_the_bare_url_means_memory_only_with_a_bound() -> None:
    assert parse("embedded://") == Settings(directory=None, keep=None, maxmemory=256 * MIB)
    assert parse("embedded:///") == parse("embedded://")


def test_a_path_is_the_data_directory_and_is_made_canonical(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert parse(f"embedded://{tmp_path}/real").directory == tmp_path.resolve() / "real"
    assert parse(f"embedded://{tmp_path}/link/").directory == tmp_path.resolve() / "real"
    assert parse(f"embedded://{tmp_path}/a%20b/../c").directory == tmp_path.resolve() / "c"


@pytest.mark.parametrize("url", ["embedded://data/dir", "embedded://./data", "embedded:data", "embedded://~/data"])
def test_a_relative_path_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="absolute path"):
        parse(url)


@pytest.mark.parametrize("url", ["embedded:///a#b", "embedded://user:hunter2@host/a", "embedded:///a%00b"])
def test_what_makes_no_sense_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(url)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(("text", "keep"), [("true", True), ("1", True), ("False", False), ("no", False)])
def test_keep_is_true_or_false(text: str, *, keep: bool) -> None:
    assert parse(f"embedded://?keep={text}").keep is keep


@pytest.mark.parametrize(
    ("text", "size"), [("64mb", 64 * MIB), ("1GB", 1024 * MIB), ("8388608", 8 * MIB), ("5m", 5_000_000)]
)
def test_maxmemory_is_read_as_the_server_reads_it(text: str, size: int) -> None:
    assert parse(f"embedded:///var/cache?maxmemory={text}").maxmemory == size


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("keep=maybe", "keep"),
        ("keep=", "keep"),
        ("maxmemory=0", "maxmemory"),
        ("maxmemory=1mb", "maxmemory"),
        ("maxmemory=-5mb", "maxmemory"),
        ("maxmemory=lots", "maxmemory"),
        ("maxmemory=", "maxmemory"),
        ("maxmemory=5mb&maxmemory=6mb", "twice"),
        ("kep=true", "keep and maxmemory"),
    ],
)
def test_a_wrong_parameter_is_named(query: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        parse(f"embedded://?{query}")
