"""A loopback proxy between clients and a server: it delays, holds, swallows, drips and cuts what passes, and can change
its target.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.servers import RedisServer, free_port

Target = tuple[str, int]


class Proxy:
    """A TCP proxy on a free port, with an event loop in a thread of its own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.delay = 0.0
        """Seconds that everything takes from one side to the other."""
        self.drip = 0.0
        """Seconds for each byte that the server says, if it is not to come at once."""
        self.port = 0
        self.barred: frozenset[str] = frozenset()
        """Addresses from which nobody is let in."""
        self._loop = asyncio.new_event_loop()
        self._open: asyncio.Event
        self._swallowing = self._halving = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._inside = set[asyncio.Task[None]]()
        self._listener: socket.socket
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    # For the test, from its own thread

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self._do(self._start)

    def hold(self) -> None:
        """Keep everything back that is said from now on, on whichever connection, until it is released."""
        self._do(self._open.clear)

    def release(self) -> None:
        """Pass on what was kept back."""
        self._do(self._open.set)

    def swallow(self) -> None:
        """Lose everything that is said from now on; connections stay open until they are cut."""
        self._swallowing = True

    def halve(self) -> None:
        """Pass on half of what the server says from now on at a time, and end that connection then."""
        self._halving = True

    def cut(self) -> None:
        """End every connection, and lose nothing any more."""
        self._do(self._cut)
        self._swallowing = self._halving = False
        self.drip = 0.0

    def bar(self, addresses: Iterable[str]) -> None:
        """Let nobody in any more from these addresses, and end every connection: others will try again."""
        self.barred = frozenset(addresses)
        self.cut()

    def stop(self) -> None:
        """End everything."""
        self._do(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _do(self, what: Callable[[], Any]) -> None:
        async def do() -> None:
            result = what()
            if asyncio.iscoroutine(result):
                await result

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(10)

    # In the loop

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Let somebody in. What asyncio accepts while it closes a server of its own, it never closes."""
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            task = self._loop.create_task(self._let_in(connection))
            self._inside.add(task)
            task.add_done_callback(self._inside.discard)

    async def _let_in(self, connection: socket.socket) -> None:
        await self._serve(*await asyncio.open_connection(sock=connection))

    async def _stop(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await asyncio.sleep(0)  # whoever was let in last has begun then: a task that never began closes nothing
        self._open.set()
        self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if writer.get_extra_info("peername")[0] in self.barred:
                raise ConnectionRefusedError
            there, back = await asyncio.open_connection(*self.target)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        with contextlib.suppress(asyncio.CancelledError):  # of which asyncio would complain, at the end
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer, speaks=True))
        self._writers -= {writer, back}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, speaks: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._open.wait()
                if self._swallowing:
                    continue
                if speaks and self.drip:
                    await self._let_drip(data, writer)
                    continue
                halved = speaks and self._halving
                writer.write(data[: len(data) // 2] if halved else data)
                await writer.drain()
                if halved:
                    break
        writer.close()  # and not `abort`, which would lose what is still to be sent

    async def _let_drip(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for place in range(len(data)):
            writer.write(data[place : place + 1])
            await writer.drain()
            await asyncio.sleep(self.drip)


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """Put a proxy before a port of 127.0.0.1 for the `with` block."""
    proxy = Proxy(("127.0.0.1", port))
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


class Line:
    """A server that can be made unreachable for those who go through the proxy, and those who do."""

    def __init__(self, server: RedisServer, proxy: Proxy) -> None:
        self.server = server
        self._proxy = proxy
        self._there = proxy.target
        self.url = f"redis://127.0.0.1:{proxy.port}/0"

    def cut(self) -> None:
        """Let nobody through: every connection breaks."""
        self._proxy.target = ("127.0.0.1", free_port())
        self._proxy.cut()

    def hang(self) -> None:
        """Lose whatever is said."""
        self._proxy.swallow()

    def mend(self) -> None:
        """Let everybody through again."""
        self._proxy.target = self._there
        self._proxy.cut()
