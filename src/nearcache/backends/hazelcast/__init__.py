"""Hazelcast 5, by its own client library: `hazelcast://`."""

from typing import ClassVar

from nearcache._io.port import Flavour
from nearcache.backends.hazelcast.aio import AwaitingMaps
from nearcache.backends.hazelcast.blocking import BlockingMaps
from nearcache.backends.hazelcast.connect import cluster_of
from nearcache.backends.hazelcast.maps import Place
from nearcache.backends.hazelcast.registers import HazelcastRegisters
from nearcache.backends.registers.backend import RegisterBackend
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registry import BackendSpec


class HazelcastBackend(RegisterBackend):
    """One namespace on a Hazelcast cluster."""

    name: ClassVar[str] = "hazelcast"


def build(spec: BackendSpec, flavour: Flavour) -> HazelcastBackend:
    """Build the backend for a URL, without opening anything; raises `ConfigError` for a wrong URL."""
    place = Place(cluster_of(spec.url), (spec.namespace, head_of(spec.namespace)), spec.timeout)
    maps = BlockingMaps(place) if flavour == "sync" else AwaitingMaps(place)
    return HazelcastBackend(HazelcastRegisters(maps, spec.namespace, spec.enveloped, spec.timeout), spec)
