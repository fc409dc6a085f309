"""The entry of the command line: commands are found, errors are one line, exit codes are what they should be."""

import logging
import os
import subprocess
import sys
from argparse import ArgumentTypeError, Namespace

import pytest

from nearcache import BackendUnavailableError, CacheError, ConfigError, UnsupportedError
from nearcache.cli import bench, options
from nearcache.cli import main as cli


def run(monkeypatch, error: BaseException | None = None, code: int = 0) -> int:
    """Run a command that returns a code or raises."""

    def command(given: Namespace) -> int:
        if error is not None:
            raise error
        return code

    monkeypatch.setattr(bench, "run", command)
    return cli.main(["bench"])


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_says_what_the_exit_code_is(monkeypatch, code) -> None:
    assert run(monkeypatch, code=code) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("url is wrong"), 2),
        (UnsupportedError("not here"), 2),
        (BackendUnavailableError("away"), 1),
        (CacheError("anything"), 1),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(monkeypatch, capsys, error, code) -> None:
    assert run(monkeypatch, error) == code
    assert capsys.readouterr().err == f"nearcache bench: {error}\n"


def test_an_interrupt_is_no_traceback(monkeypatch) -> None:
    assert run(monkeypatch, KeyboardInterrupt()) == 130


def test_the_log_does_not_repeat_the_error(monkeypatch) -> None:
    run(monkeypatch)
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("nearcache").handlers)


@pytest.mark.parametrize("arguments", [[], ["dance"], ["bench", "--seconds", "0"], ["bench", "--fast"]])
def test_bad_usage_exits_with_2(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert "usage: nearcache" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "61", "nan", "inf", "soon"])
def test_seconds_are_a_number_within_bounds(text) -> None:
    with pytest.raises(ArgumentTypeError, match="above 0 and at most 60"):
        options.positive(60)(text)


def test_help_names_every_command(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_takes_url_and_json(name) -> None:
    given = cli.parser().parse_args([name, "--url", "memory://", "--json"])
    assert (given.command, given.url, given.json) == (name, "memory://", True)


def test_the_url_beats_the_variable(monkeypatch) -> None:
    monkeypatch.setenv("CACHE_URL", "redis://elsewhere:1/0")
    assert "redis://elsewhere:1" in repr(options.cache_of(Namespace(url=None)))
    assert "memory://" in repr(options.cache_of(Namespace(url="memory://")))


def test_python_dash_m_is_the_command() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CACHE_")}
    done = subprocess.run(
        [sys.executable, "-m", "nearcache", "bench", "--url", "foo://user:secret@host"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nearcache bench: url is foo://host; it must begin with one of")
