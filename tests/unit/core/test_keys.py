"""The rules of keys and the namespace."""

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._core.keys import MAX_BASE64, MAX_BASE64_NAME, MAX_BYTES, Namespace, check_key, check_name, entity_of
from nearcache.errors import ConfigError, InvalidKeyError

APP = Namespace("app")

GOOD = [
    "flags",
    "users:1",
    "a:b:c:d:e:f:g",
    "users:zoë",
    "users:%20",
    "users:!None",
    "users:a-b_c.d@e/f",
    "~x:1",
    "users:Ω",
]

BAD = [
    ("", "empty part"),
    (":", "empty part"),
    ("users:", "empty part"),
    (":users", "empty part"),
    ("users::1", "empty part"),
    ("a:b:c:d:e:f:g:h", "8 parts; at most 7"),
    ("users:a b", "white space"),
    ("users:a\n", "white space"),
    ("users:\t", "white space"),
    ("users:\x00", "control character"),
    ("users:\x7f", "control character"),
    ("users:\u00a0", "white space"),
    ("users:\u2028", "white space"),
    ("users:\u200b", "cannot be printed"),
    ("users:\ud800", "cannot be printed"),
    ("{users}:1", "brace"),
    ("users:}", "brace"),
    ("users:" + "x" * 200, "has 206 bytes; at most"),
]


@pytest.mark.parametrize("check", [APP.check, APP.check_name, check_key, check_name])
@pytest.mark.parametrize("key", GOOD)
def test_a_good_key_is_returned_as_it_is(check, key):
    assert check(key) == key
    assert type(check(key)) is str


@pytest.mark.parametrize("check", [APP.check, APP.check_name, check_key, check_name])
@pytest.mark.parametrize(("key", "message"), BAD)
def test_a_bad_key_is_refused_saying_which_rule_it_breaks(check, key, message):
    with pytest.raises(InvalidKeyError, match=message):
        check(key)


@pytest.mark.parametrize("key", [None, 1, b"users:1", ("users", 1), ["users:1"]], ids=repr)
def test_a_key_is_a_str(key):
    with pytest.raises(InvalidKeyError, match="a key is a str such as 'users:1', not a "):
        APP.check(key)


def test_a_refusal_names_the_key_and_the_way_to_put_any_text_into_one():
    with pytest.raises(InvalidKeyError, match=r"^key 'users:a b' holds white space.*cache\.key\("):
        APP.check("users:a b")


def test_a_str_of_a_subclass_becomes_a_plain_one():
    class Text(str):
        def __str__(self) -> str:
            return "something else"

    key = APP.check(Text("users:1"))
    assert key == "users:1"
    assert type(key) is str


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_200_bytes_are_allowed_namespace_included_and_no_more(letter):
    size = len(letter.encode())
    room = MAX_BYTES - len("app:users:")
    fits = "users:" + letter * (room // size)
    assert len(APP.engine_key(APP.check(fits)).encode()) <= MAX_BYTES == 200
    with pytest.raises(InvalidKeyError, match=r"bytes; at most 196 .*\{name:hash\}"):
        APP.check(fits + letter)


@pytest.mark.parametrize("letter", ["é", "€", "\U0001f600"])
def test_where_keys_go_in_base64_one_that_is_not_ascii_is_shorter(letter):
    """So that no engine which takes 250 bytes refuses a key that was let through."""
    coded = Namespace("app", in_base64=True)
    letters = letter * 100
    fits = "users:" + letters[: (MAX_BASE64 - len("app:users:")) // len(letter.encode())]
    assert len(b64encode(coded.engine_key(coded.check(fits)).encode())) <= 250
    with pytest.raises(InvalidKeyError, match=r"bytes; at most 182 .*\{name:hash\}"):
        coded.check(fits + letter)
    plain = "users:" + "x" * (MAX_BYTES - len("app:users:"))
    assert coded.check(plain) == plain
    assert len(b64encode(b"x" * MAX_BASE64)) <= 250 < len(b64encode(b"x" * (MAX_BASE64 + 1)))


def test_where_keys_go_in_base64_the_record_of_a_limiter_fits_too():
    coded = Namespace("app", in_base64=True)
    name = "é" * ((MAX_BASE64_NAME - len("app:")) // 2)
    record = f"{{app:{coded.check_name(name)}:{'0' * 32}}}~r"
    assert len(b64encode(record.encode())) <= 250
    with pytest.raises(InvalidKeyError, match=r"name .* bytes; at most 145 "):
        coded.check_name(name + "é")
    assert Namespace("app").check_name(name + "é")


def test_a_long_key_is_cut_in_the_message():
    with pytest.raises(InvalidKeyError) as error:
        APP.check("users:" + "x" * 100_000)
    assert len(str(error.value)) < 400


@settings(deadline=None)
@given(st.text("ab:1é {}%!~\x00\u200d\ud800", max_size=8) | st.text(max_size=8))
def test_the_quick_check_and_the_thorough_one_agree(key):
    try:
        expected = check_key(key)
    except InvalidKeyError:
        with pytest.raises(InvalidKeyError):
            APP.check(key)
    else:
        assert APP.check(key) == expected == key


@pytest.mark.parametrize("name", ["app", "A.b-c_9", "x" * 100])
def test_a_namespace_is_the_first_part_of_the_engines_key(name):
    namespace = Namespace(name)
    assert namespace.name == name
    assert namespace.engine_key("users:1") == f"{name}:users:1"
    assert repr(namespace) == f"Namespace({name!r})"


@pytest.mark.parametrize("name", ["", "a:b", "a b", "é", "a\n", "{a}", "a~", "x" * 101, None, 5, b"app"], ids=repr)
def test_a_namespace_has_only_letters_digits_underscores_dots_and_hyphens(name):
    with pytest.raises(ConfigError, match=r"^namespace is .*; it must be 1 to 100 characters"):
        Namespace(name)


@settings(deadline=None)
@given(st.text("ab:~{}1", max_size=6))
def test_no_key_can_take_the_name_of_an_internal_record(text):
    try:
        engine_key = APP.engine_key(APP.check(text))
    except InvalidKeyError:
        return
    assert engine_key.startswith("app:")
    assert not engine_key.startswith(("{app", "app~"))


def test_the_entity_is_the_first_part():
    assert entity_of("users:1:profile") == "users"
    assert entity_of("flags") == "flags"


@pytest.mark.parametrize("keys", ["users:1", 5, None], ids=repr)
def test_several_keys_are_not_one_str(keys):
    with pytest.raises(InvalidKeyError, match="keys are a list"):
        APP.check_all(keys)


def test_several_keys_come_once_each_and_in_order():
    assert APP.check_all(iter(["b:1", "a:1", "b:1"])) == ["b:1", "a:1"]
