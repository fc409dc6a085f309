"""Hazelcast 5, by its own client library: `hazelcast://`."""

from typing import ClassVar

from nearcache._io.port import Flavour
from nearcache.backends.base import Admin
from nearcache.backends.hazelcast.aio import AwaitingMaps
from nearcache.backends.hazelcast.blocking import BlockingMaps
from nearcache.backends.hazelcast.checkup import HazelcastAdmin
from nearcache.backends.hazelcast.connect import cluster_of
from nearcache.backends.hazelcast.maps import Place
from nearcache.backends.hazelcast.registers import HazelcastRegisters
from nearcache.backends.registers.backend import RegisterBackend
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registry import BackendSpec


class HazelcastBackend(RegisterBackend):
    """One namespace on a Hazelcast cluster."""

    name: ClassVar[str] = "hazelcast"

    def __init__(self, registers: HazelcastRegisters, spec: BackendSpec, flavour: Flavour) -> None:
        super().__init__(registers, spec, flavour)
        self.admin: Admin | None = HazelcastAdmin(registers)


def build(spec: BackendSpec, flavour: Flavour) -> HazelcastBackend:
    """Build the backend for a URL, without opening anything; raises `ConfigError` for a wrong URL."""
    place = Place(cluster_of(spec.url), (spec.namespace, head_of(spec.namespace)), spec.timeout)
    maps = BlockingMaps(place) if flavour == "sync" else AwaitingMaps(place)
    registers = HazelcastRegisters(maps, spec.namespace, spec.enveloped, spec.timeout)
    return HazelcastBackend(registers, spec, flavour)
