"""What of a URL may be shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._core.urls import DEFAULT_URLS, KINDS, redacted, scheme_of

SHOWN = [
    ("redis://localhost:6379/0", "redis://localhost:6379"),
    ("redis://user:hunter2@cache.example.org:6379/0", "redis://cache.example.org:6379"),
    ("rediss://:hunter2@[::1]:6379", "rediss://[::1]:6379"),
    ("redis://:hunter@2@host/0", "redis://host"),
    ("redis://host:1/0?password=hunter2&username=hunter2", "redis://host:1"),
    ("redis://host#hunter2", "redis://host"),
    ("unix:///run/hunter2.sock?password=hunter2", "unix://"),
    ("unix://:hunter2@/run/redis.sock", "unix://"),
    ("redis+sentinel://:hunter2@h1:26379,h2:26379/hunter2/0", "redis+sentinel://h1:26379,h2:26379"),
    ("memory://", "memory://"),
    ("embedded:///var/hunter2", "embedded://"),
    # A password with unescaped delimiters ends the authority early.
    ("redis://:hunter2/x@host:6379/0", "redis://***"),
    ("redis://user:1234/hunter2@host:6379/0", "redis://***"),
    ("redis://user:hunter2?x@host", "redis://***"),
    ("redis://:hunter2#x@host", "redis://***"),
    ("redis://:hunter2", "redis://***"),
    ("redis://user:hunter2", "redis://***"),
    ("redis://host:port", "redis://***"),
    ("localhost:6379", "localhost:6379"),
    ("user:hunter2@localhost", "***"),
    ("hunter2 hunter2", "***"),
]


@pytest.mark.parametrize(("url", "shown"), SHOWN)
def test_only_scheme_host_and_port_are_shown(url, shown):
    assert redacted(url) == shown
    assert "hunter" not in shown


@settings(deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.text("hunter2:/?#@[],% \n", min_size=1).map(lambda text: f"SECRET{text}SECRET"),
    st.sampled_from(["", "user", "us%40er"]),
    st.sampled_from(["", "/0", "/0?a=b", "?x=1#y"]),
)
def test_no_piece_of_a_password_is_ever_shown(scheme, password, user, rest):
    assert "SECRET" not in redacted(f"{scheme}://{user}:{password}@host:6379{rest}")


@settings(deadline=None)
@given(st.text("redis:/@?#,[]a1 \n", max_size=20))
def test_what_is_shown_has_no_user_path_or_query(url):
    shown = redacted(url).partition("://")[2]
    assert not set(shown) & set("@/?# \n")


def test_the_scheme_is_read_in_lower_case():
    assert scheme_of("Redis+Cluster://h") == "redis+cluster"
    assert scheme_of("localhost:6379") is None
    assert scheme_of("redis:/host") is None


def test_every_default_url_is_of_its_kind():
    for kind, url in DEFAULT_URLS.items():
        assert KINDS[scheme_of(url) or ""] == ("redis" if kind == "valkey" else kind)
