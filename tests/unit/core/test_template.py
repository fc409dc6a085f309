"""Key templates."""

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._core.keys import Namespace, check_key
from nearcache._core.template import Template, template
from nearcache.errors import ConfigError, InvalidKeyError
from tests.unit.core.argument_values import arguments, shared_identity

TEMPLATES = [
    "users:{a}:{b}:{c}",
    "{a}:{b}:{c}",
    "users:{a}-{b}:x{c}",
    "users:{a},{b},{c}",
    "users:v{a}_{b}-{c}w",
    "users:{a}({b}({c}",
    "users:{a}=x={b}:profile:{c}",
    "users:{a:hash}:{b}:{c}",
    "users:{a:hash}({b:hash}){c}",
    "users:{a}.{b}:{c}",
]


@pytest.mark.parametrize("text", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_two_different_argument_tuples_share_a_key(text, data):
    made = Template(text)
    tuples = data.draw(st.lists(st.tuples(arguments, arguments, arguments), min_size=2, max_size=6))
    for one, other in itertools.combinations(tuples, 2):
        same = [*map(shared_identity, one)] == [*map(shared_identity, other)]
        assert (made.render(*one) == made.render(*other)) == same


@pytest.mark.parametrize("text", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), first=st.text("-1a,_(=.", max_size=4), second=st.text("-1a,_(=.", max_size=4))
def test_moving_a_separator_from_one_argument_to_the_next_changes_the_key(text, data, first, second):
    cut = data.draw(st.integers(0, len(first + second)))
    moved = (first + second)[:cut], (first + second)[cut:]
    made = Template(text)
    assert (made.render(first, second, 1) == made.render(*moved, 1)) == (moved == (first, second))


@pytest.mark.parametrize("text", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(values=st.tuples(arguments, arguments, arguments))
def test_no_argument_adds_a_part_or_leaves_its_place(text, values):
    key = Template(text).render(*values)
    parts = key.split(":")
    literal = Template(text).render(1, 2, 3).split(":")
    assert len(parts) == len(literal)
    assert all(parts)
    assert [at for at, part in enumerate(literal) if part == "profile" != parts[at]] == []
    if text.startswith("users"):
        assert parts[0] == "users"
    if len(key.encode()) <= 190:
        assert check_key(key) == key
        assert Namespace("app").check(key) == key


def test_the_names_of_parameters_come_in_order_and_once():
    assert Template("users:{b}:{a.x}:{b.y}:{c:hash}").fields == ("b", "a", "c")
    assert Template("flags").fields == ()


def test_a_template_without_placeholders_is_its_own_key():
    assert Template("flags").format({}) == "flags"


def test_arguments_go_where_they_are_named():
    made = Template("users:{user_id}:v{version}")
    assert made.format({"version": 2, "user_id": 1}) == "users:1:v2"
    assert made.render(1, 2) == "users:1:v2"


def test_an_attribute_is_read():
    user = SimpleNamespace(id=7, team=SimpleNamespace(name="a:b"))
    assert Template("users:{user.id}:{user.team.name}").render(user) == "users:7:a%3Ab"


def test_a_missing_attribute_names_the_parameter():
    with pytest.raises(InvalidKeyError, match="argument 'user': a int has no attribute 'id'"):
        Template("users:{user.id}").render(7)


def test_a_missing_argument_is_named():
    with pytest.raises(InvalidKeyError, match="needs an argument 'email'"):
        Template("users:{email}").format({"emial": "x"})


def test_an_argument_without_a_placeholder_is_named():
    with pytest.raises(InvalidKeyError, match="no placeholder for the argument 'lang'"):
        Template("users:{email}").format({"email": "x", "lang": "en"})


def test_hash_shortens_long_text_to_128_bits_that_no_text_can_be():
    made = Template("pages:{url:hash}")
    key = made.render("https://example.org/" + "x" * 10_000)
    assert key == "pages:!hash(b42b49cab4b911dcc1ee5ebcd0c5896f)"
    assert Template("pages:{url}").render(key.removeprefix("pages:")) != key
    assert made.render("1") == made.render(1) != made.render(True)


def test_an_unstable_argument_is_refused_with_hash_too():
    with pytest.raises(InvalidKeyError, match="argument 'url' cannot be part of a key"):
        Template("pages:{url:hash}").render(object())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty part"),
        ("users:", "empty part"),
        (":{a}", "empty part"),
        ("users::{a}", "empty part"),
        ("users:{}", "placeholder {}"),
        ("users:{0}", "placeholder {0}"),
        ("users:{a!r}", "placeholder {a!r}"),
        ("users:{a:>5}", "placeholder {a:>5}"),
        ("users:{a[0]}", r"placeholder \{a\[0\]\}"),
        ("users:{a.}", "placeholder {a.}"),
        ("users:{a._private}", "placeholder {a._private}"),
        ("users:{a.__class__}", "placeholder {a.__class__}"),
        ("users:{ a }", "placeholder { a }"),
        ("users:{a", "outside a placeholder"),
        ("users:a}", "outside a placeholder"),
        ("users:{{a}}", "outside a placeholder"),
        ("users of:{a}", "outside a placeholder"),
        ("users\n:{a}", "outside a placeholder"),
        ("users:{a}{b}", "between two placeholders"),
        ("users:{a}x{b}", "between two placeholders"),
        ("users:{a}%{b}", "between two placeholders"),
        ("users:{a}!{b}", "between two placeholders"),
        ("users:{a}'{b}", "between two placeholders"),
        ("users:{a}é{b}", "between two placeholders"),
        ("a:b:c:d:e:f:g:{h}", "8 parts; at most 7"),
    ],
)
def test_a_bad_template_is_a_config_error_that_shows_it(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        Template(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", [None, 5, b"users:{a}"])
def test_a_template_is_a_str(text):
    with pytest.raises(ConfigError, match="a key template is a str"):
        Template(text)


def test_seven_parts_are_allowed():
    assert Template("a:b:c:d:e:f:{g}").render(7) == "a:b:c:d:e:f:7"


def test_a_template_is_made_once_per_text():
    assert template("users:{a}") is template("users:{a}")
    assert repr(template("users:{a}")) == "Template('users:{a}')"
