"""Memcached 1.6.13 or newer, by its meta protocol: `memcached://`."""

import weakref
from typing import ClassVar

from nearcache._core.limits import Kind
from nearcache._core.ring import Ring
from nearcache._io.port import Flavour
from nearcache.backends.memcached.connect import settings_of
from nearcache.backends.memcached.eject import Ejecting
from nearcache.backends.memcached.registers import MemcachedRegisters, Places
from nearcache.backends.memcached.servers import LinkedServers, Nodes
from nearcache.backends.memcached.tooling import Admin
from nearcache.backends.payer import Payer
from nearcache.backends.registers.backend import RegisterBackend
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registers.sessions import RegisterSessions
from nearcache.backends.registry import BackendSpec


class MemcachedBackend(RegisterBackend):
    """One namespace on Memcached servers."""

    name: ClassVar[str] = "memcached"
    limit_kinds: ClassVar[tuple[Kind, ...]] = ("fixed",)

    def __init__(
        self, registers: MemcachedRegisters, spec: BackendSpec, flavour: Flavour, payer: Payer | None = None
    ) -> None:
        super().__init__(registers, spec, flavour)
        self._payer = payer
        if payer is not None:  # not at exit: a process that ends takes its connections with it
            weakref.finalize(self, payer.stop).atexit = False

    async def close(self) -> None:
        """Give up every connection, also that of who repeats invalidations; a later call connects again."""
        if self._payer is not None:
            self._payer.stop()
        await super().close()


def build(spec: BackendSpec, flavour: Flavour) -> MemcachedBackend:
    """Build the backend for a URL, without opening anything; raises `ConfigError` for a wrong URL."""
    places, ejects = settings_of(spec.url)
    nodes = spec.shared(Nodes, lambda: Nodes(places, lambda: spec.coherence.forgot(MemcachedBackend.name)))
    ring: Places = Ring(places)
    if ejects:
        ring = spec.shared(Ejecting, lambda: Ejecting(Ring(places), nodes, spec.namespace))

    def registers(servers: LinkedServers, ring: Places = ring) -> MemcachedRegisters:
        return MemcachedRegisters(servers, ring, head_of(spec.namespace))

    def paying(_ended: object) -> MemcachedBackend:
        return MemcachedBackend(registers(LinkedServers(nodes, spec, "sync")), spec, "sync")

    servers = LinkedServers(nodes, spec, flavour)
    backend = MemcachedBackend(registers(servers), spec, flavour, spec.shared(Payer, lambda: Payer(spec, paying)))
    if ejects:  # a session stays where it is: elsewhere one could be destroyed, and still be there afterwards
        backend.sessions = RegisterSessions(backend, registers(servers, Ring(places)), spec.namespace)
    backend.admin = Admin(servers, [node.where for node in nodes.all], ejects=ejects)
    return backend
