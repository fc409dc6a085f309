"""Keys lie where libmemcached puts them."""

import contextlib
import importlib
from typing import Any

import pytest

from nearcache._core.ring import UNNAMED_PORT, Ring
from nearcache.backends.registers.base import Look
from tests.memcached import registers
from tests.servers import MemcachedServer, free_port, memcached_server, missing

KEYS = [f"app:users:{number}" for number in range(600)]


def library() -> Any:
    """Return pylibmc, or skip the test."""
    try:
        return importlib.import_module("pylibmc")
    except ImportError:
        missing("pylibmc is missing; `make .venv/.dev` installs it where there is a wheel")


@pytest.mark.parametrize("port", [UNNAMED_PORT, None], ids=["the usual port", "other ports"])
async def test_another_client_has_stored_them_on_the_same_servers(port: int | None):
    pylibmc = library()
    with contextlib.ExitStack() as stack:
        servers = list[MemcachedServer]()
        for number in (31, 32, 33):
            own = memcached_server("-m", "16", host=f"127.0.0.{number}", port=port or free_port())
            servers.append(stack.enter_context(own))
        client = pylibmc.Client(
            [server.where for server in servers], behaviors={"ketama_weighted": True, "hash": "md5"}
        )
        for key in KEYS:
            assert client.set(key, "1")
        client.disconnect_all()
        ring = Ring([(server.host, server.port) for server in servers])
        shares = [sum(ring.of(key) == number for key in KEYS) for number in range(3)]
        assert [int(server.stats()["curr_items"]) for server in servers] == shares
        found, way = registers(*servers)
        answers = await found.run(*[Look(key) for key in KEYS])
        assert [answer.raw for answer in answers] == [b"1"] * len(KEYS)
        await way.close()
