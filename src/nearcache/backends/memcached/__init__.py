"""Memcached 1.6.13 or newer, by its meta protocol: `memcached://`."""

from typing import ClassVar

from nearcache._core.limits import Kind
from nearcache._core.ring import Ring
from nearcache._io.port import Flavour
from nearcache.backends.memcached.connect import settings_of
from nearcache.backends.memcached.dialect import LONGEST_LIFE
from nearcache.backends.memcached.eject import Ejecting
from nearcache.backends.memcached.registers import MemcachedRegisters, Places
from nearcache.backends.memcached.servers import LinkedServers, Nodes
from nearcache.backends.memcached.tooling import Admin
from nearcache.backends.registers.backend import RegisterBackend
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registry import BackendSpec


class MemcachedBackend(RegisterBackend):
    """One namespace on Memcached servers."""

    name: ClassVar[str] = "memcached"
    limit_kinds: ClassVar[tuple[Kind, ...]] = ("fixed",)
    longest_life: ClassVar[float] = LONGEST_LIFE


def build(spec: BackendSpec, flavour: Flavour) -> MemcachedBackend:
    """Build the backend for a URL, without opening anything; raises `ConfigError` for a wrong URL."""
    places, ejects = settings_of(spec.url)
    nodes = spec.shared(Nodes, lambda: Nodes(places, lambda: spec.coherence.forgot(MemcachedBackend.name)))
    servers = LinkedServers(nodes, spec, flavour)
    ring: Places = Ring(places)
    if ejects:
        ring = spec.shared(Ejecting, lambda: Ejecting(Ring(places), nodes, spec.namespace))
    backend = MemcachedBackend(MemcachedRegisters(servers, ring, head_of(spec.namespace)), spec, flavour)
    backend.admin = Admin(servers, [node.where for node in nodes.all], ejects=ejects)
    return backend
