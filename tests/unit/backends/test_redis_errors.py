"""What engines answer to a user without a permission is said in one way, with the command."""

import pickle

import pytest

from nearcache.backends.redis.errors import InPart, in_part, refused
from nearcache.backends.redis.lua import command_at, script

ADD = script("add")
LINE = next(number for number, line in enumerate(ADD.text.splitlines(), 1) if "'GET'" in line)
SENTENCE = "The user executing the script can't run this command or subcommand"


@pytest.mark.parametrize(
    "answer",
    [
        f"ERR {SENTENCE} script: {ADD.sha}, on @user_script:{LINE}.",
        f"ERR Error running script (call to f_{ADD.sha}): @user_script:{LINE}: @user_script: {LINE}: {SENTENCE}",
    ],
)
def test_a_script_is_named_by_its_line(answer: str):
    said = str(refused(RuntimeError(answer), "a:1"))
    assert said.startswith("a:1: the engine answered NOPERM the user may not run 'GET' in a script; give the user")


def test_an_engine_that_names_the_command_is_repeated():
    answer = "NOPERM ACL failure in script: User u has no permissions to run the 'zadd' command script: abc, on @x:1."
    assert "answered NOPERM User u has no permissions to run the 'zadd' command; give" in str(
        refused(RuntimeError(answer), "a:1")
    )


def test_a_script_that_is_not_ours_is_not_looked_at():
    said = str(refused(RuntimeError(f"ERR {SENTENCE} script: {'0' * 40}, on @user_script:7."), "a:1"))
    assert said.startswith(f"a:1: the engine answered NOPERM {SENTENCE}; give the user")
    assert said.endswith("docs/rights.md has the whole rule")
    assert command_at(ADD.sha, 1) is None


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ("MOVED 7 h:7", "it is a node of a cluster; url (CACHE_URL) must begin with redis+cluster://"),
        ("ERR SELECT is not allowed in cluster mode", "must begin with redis+cluster://, and names no database"),
        ("ERR This instance has cluster support disabled", "of a single server begins with redis://"),
        ("ERR DB index is out of range", "names a database that the engine does not have"),
        ("ERR unknown command 'TIME', with args beginning with: ", "or a sentinel? url (CACHE_URL) with ?protocol=2"),
    ],
)
def test_the_wrong_kind_of_server_comes_with_what_to_do(answer: str, advice: str):
    assert advice in str(refused(RuntimeError(answer), "a:1"))


def test_other_errors_of_scripts_are_what_they_are():
    assert "NOPERM" not in str(refused(RuntimeError("ERR something script: abc, on @user_script:7."), "a:1"))


@pytest.mark.parametrize("reply", [RuntimeError("OOM command not allowed"), InPart([RuntimeError("OOM no"), 1])])
def test_what_is_logged_of_an_error_names_no_key(reply: Exception):
    error = in_part(["a:secret", "a:2"], reply)
    assert str(error).startswith("a:secret: the engine answered OOM")
    assert error.why.startswith("the engine answered OOM")
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.why) == (str(error), error.why)
