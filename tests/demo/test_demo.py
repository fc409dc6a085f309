"""The demo as people start it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nearcache import UnsupportedError
from nearcache.demo import __main__ as demo

CHECKOUT = Path(__file__).parents[2]
WITHOUT_ENGINE = """
import sys
from nearcache import UnsupportedError
from nearcache.demo import __main__ as demo

def no_engine(*_, **__):
    raise UnsupportedError("embedded:// needs a POSIX system, and this is plan9")

demo.Cache = no_engine
sys.exit(demo.main())
"""

GROUP = """
import signal
import threading
from nearcache.demo.sentinels import group

signal.signal(signal.SIGTERM, signal.default_int_handler)
with group():
    print("there", flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def start(tmp_path):
    """Start the demo with a folder of its own for temporary files; it must leave none."""
    running = []

    def start(*command, **variables):
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), "TMPDIR": str(tmp_path), **variables}
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def nothing_left(tmp_path):
    return not list(tmp_path.iterdir()) and not engines_in(tmp_path)


def engines_in(folder):
    found = []
    for process in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += [process] if process.readlink().is_relative_to(folder) else []
        except OSError:
            continue
    return found


def wait_until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("arguments", "once"), [(["--once"], ""), ([], "1")])
def test_the_whole_demo_keeps_its_promises_and_leaves_nothing(start, tmp_path, arguments, once):
    process = start("-m", "nearcache.demo", *arguments, ONCE=once, CACHE_TYPE="memory", CACHE_URL="redis://nowhere")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Everything is as promised" in output
    assert re.search(r"queries that reached SQLite +1, 1, 1 +yes", output)
    assert re.search(r"writes that raised BackendError +4 of 4 +yes", output)
    assert re.search(r"errors they got +0 +yes", output)
    assert re.search(r"late writes that SQLite refused +[1-9] +yes", output)
    assert re.search(r"let through to the password +5 +yes", output)
    assert re.search(r"Retry-After: [1-9]", output)
    assert re.search(r"sessions ended at once +4 +yes", output)
    assert re.search(r"sessions that came back +0 +yes", output)
    assert nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_without_an_engine_the_scenes_of_one_process_run(start, tmp_path):
    process = start("-c", WITHOUT_ENGINE, ONCE="1")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "this is plan9" in output
    assert output.count("left out: needs an engine") == 8
    assert re.search(r"queries that reached SQLite +1, 1, 1 +yes", output)
    assert nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("scene", ["Cold and warm", "Four processes"])
def test_an_interrupted_demo_leaves_nothing(start, tmp_path, number, scene):
    process = start("-u", "-m", "nearcache.demo")
    for line in process.stdout:
        if line.startswith(scene):
            break
    assert engines_in(tmp_path)
    # As a terminal does: to all processes. A supervisor tells the first one only.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    output = process.stdout.read()
    assert process.wait() == 130
    assert "Traceback" not in output
    wait_until(lambda: nothing_left(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("begun", [1, 4, 6])
def test_a_group_that_is_interrupted_leaves_nothing(start, tmp_path, number, begun):
    """While it starts, and when it is there."""
    process = start("-c", GROUP)
    wait_until(lambda: len(engines_in(tmp_path)) >= begun and (begun < 6 or process.stdout.readline()))
    os.kill(process.pid, number)
    assert "KeyboardInterrupt" in process.stdout.read()
    process.wait()
    wait_until(lambda: nothing_left(tmp_path))


def test_without_its_libraries_the_demo_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(demo, "LIBRARIES", ("rich", "no_such_library"))
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert demo.main() == 2
    assert 'no_such_library: pip install "nearcache[demo]"' in capsys.readouterr().err


def test_only_missing_support_leads_to_memory(monkeypatch, capsys):
    def unsupported(*_, **__):
        raise UnsupportedError("not here")

    monkeypatch.setattr(demo, "Cache", unsupported)
    assert demo._engine("embedded:///x") == "memory://"
    assert "not here" in capsys.readouterr().out


@pytest.mark.parametrize(("value", "once"), [("", False), ("0", False), ("1", True), ("yes", True)])
def test_once_is_read_from_the_environment(monkeypatch, value, once):
    monkeypatch.setenv("ONCE", value)
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert demo._arguments() is once
