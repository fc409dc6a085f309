"""What messages call records."""

import pytest

from nearcache.backends.hazelcast.feed import ring_of
from nearcache.backends.memcached import dialect
from nearcache.backends.memcached.errors import refused
from nearcache.backends.registers.locks import locks_of
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registers.names import about
from nearcache.backends.registers.sessions import sessions_in


@pytest.mark.parametrize(
    "name", ["app:users:1", "app:users:~m", "app:~:b", "stats", "", "the connection to host1:11211"]
)
def test_what_users_have_named_is_called_by_its_name(name: str) -> None:
    assert about(name) == name


@pytest.mark.parametrize(
    ("name", "called"),
    [
        (head_of("app"), "what was invalidated in the namespace 'app'"),
        (f"{head_of('app')}:17", "what was invalidated in the namespace 'app'"),
        (ring_of("app"), "the announcement of changes in the namespace 'app'"),
        ("app~t", "the engine's time in the namespace 'app'"),
        (f"{locks_of('app')}:payment:42", "locks in the namespace 'app'"),
        (f"{sessions_in('app')}:u:{'0' * 32}", "sessions in the namespace 'app'"),
        (f"{{app:login:{'0' * 32}}}~r", "login"),
    ],
)
def test_the_librarys_own_are_called_by_what_they_are_for(name: str, called: str) -> None:
    assert about(name) == called
    assert str(refused("SERVER_ERROR", name)).startswith(f"{called}: ")
    assert dialect.subject([dialect.get(name)]) == f"mg {called}"
