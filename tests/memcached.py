"""Memcached servers over plain sockets: a driver for tests of what is sent, without the library's own connections."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from nearcache._core.ring import Ring
from nearcache.backends.memcached import dialect
from nearcache.backends.memcached.registers import Heard, MemcachedRegisters, Order
from nearcache.backends.transport.dialect import INCOMPLETE, Command
from nearcache.errors import BackendError, BackendUnavailableError
from tests.servers import MemcachedServer

TIMEOUT = 5.0


class Connection:
    """One connection, and the life of the server that it leads to."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self._reader = dialect.reader()
        (told,) = self.call([dialect.stats()])
        self.life = f"{told['pid']} {int(told['time']) - int(told['uptime'])}"

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands and return the replies."""
        self._socket.sendall(dialect.pack(commands))
        replies = list[Any]()
        while len(replies) < len(commands):
            if (reply := self._reader.gets()) is not INCOMPLETE:
                replies.append(reply)
            elif data := self._socket.recv(65536):
                self._reader.feed(data)
            else:
                raise ConnectionResetError("the server closed the connection")
        assert not self._reader.has_data(), "more replies than commands"
        return replies

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class PlainServers:
    """The way to servers: one connection to each, opened anew when it broke."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._addresses = addresses
        self._open: dict[int, Connection] = {}
        self._lives: dict[int, str] = {}
        self.trips = 0
        self.forgets_lives = False
        """Whether a connection to another life of a server is as good as any: the mechanism is off."""

    def life(self, server: int) -> str:
        """Return the life of a server that was seen last."""
        return self._lives.get(server, "")

    async def ask(self, server: int, order: Order) -> Heard | BackendError:
        """Send to one server."""
        return (await self.send({server: order}))[server]

    async def send(self, orders: Mapping[int, Order]) -> Mapping[int, Heard | BackendError]:
        """Send to one server after the other."""
        self.trips += 1
        return {server: self._sent(server, order) for server, order in orders.items()}

    def _sent(self, server: int, order: Order) -> Heard | BackendError:
        try:
            connection = self._open.get(server) or self._connected(server)
            if order.life and connection.life != order.life:
                return BackendUnavailableError("another life").undone()
            return Heard(connection.call(order.commands), connection.life)
        except OSError as error:
            if server in self._open:
                self._open.pop(server).close()
            return BackendUnavailableError(str(error))

    def _connected(self, server: int) -> Connection:
        connection = self._open[server] = Connection(*self._addresses[server])
        if self.forgets_lives:
            connection.life = self._lives.get(server, connection.life)
        self._lives[server] = connection.life
        return connection

    async def open(self) -> None:
        """Connect to all."""
        for server in range(len(self._addresses)):
            if server not in self._open:
                self._connected(server)

    async def close(self) -> None:
        """Close all connections."""
        while self._open:
            self._open.popitem()[1].close()

    def lacks(self) -> bool:
        """Nothing is spared here."""
        return False


def registers(*servers: MemcachedServer) -> tuple[MemcachedRegisters, PlainServers]:
    """Return registers over servers, and the way to them."""
    addresses = [(server.host, server.port) for server in servers]
    way = PlainServers(addresses)
    return MemcachedRegisters(way, Ring(addresses), "app~m"), way
