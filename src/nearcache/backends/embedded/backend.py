"""The backend of embedded://: Redis commands over a unix socket, and a share in the server behind it."""

from typing import ClassVar

from nearcache.backends.embedded.settings import Settings
from nearcache.backends.embedded.share import Lease
from nearcache.backends.redis import RedisBackend, link, listener
from nearcache.backends.redis.connect import Endpoint
from nearcache.backends.registry import BackendSpec, Flavour
from nearcache.backends.transport.dial import Route


class EmbeddedBackend(RedisBackend):
    """One namespace of an embedded server, which is started when a connection is needed and it is not there."""

    name: ClassVar[str] = "embedded"

    def __init__(self, spec: BackendSpec, flavour: Flavour, settings: Settings) -> None:
        self._lease = Lease(settings, spec.timeout)
        hearing = Lease(settings, spec.timeout)
        ears = listener(spec, Route(hearing.address, Endpoint, starts=True), self.name, hearing.release)
        super().__init__(link(spec, flavour, Route(self._lease.address, Endpoint, starts=True), self.name), ears, spec)

    async def close(self) -> None:
        """Give up every connection and the share in the server; the last one to close stops it, within two seconds."""
        try:
            await super().close()
        finally:
            self._lease.release()
