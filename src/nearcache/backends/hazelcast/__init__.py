"""Hazelcast 5, by its own client library: `hazelcast://`."""

import functools
import weakref
from typing import ClassVar

from nearcache._io.blocking import drive
from nearcache._io.port import Flavour
from nearcache.backends.base import Admin
from nearcache.backends.hazelcast.aio import AwaitingMaps
from nearcache.backends.hazelcast.blocking import BlockingMaps
from nearcache.backends.hazelcast.checkup import HazelcastAdmin
from nearcache.backends.hazelcast.connect import cluster_of
from nearcache.backends.hazelcast.feed import Feed, ring_of
from nearcache.backends.hazelcast.listener import HazelcastListener, Speaker
from nearcache.backends.hazelcast.maps import Maps, Place
from nearcache.backends.hazelcast.registers import HazelcastRegisters
from nearcache.backends.payer import Payer
from nearcache.backends.registers.backend import RegisterBackend
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registry import BackendSpec


class HazelcastBackend(RegisterBackend):
    """One namespace on a Hazelcast cluster."""

    name: ClassVar[str] = "hazelcast"

    def __init__(
        self, registers: HazelcastRegisters, spec: BackendSpec, flavour: Flavour, heard: "_Heard | None" = None
    ) -> None:
        super().__init__(registers, spec, flavour)
        self.admin: Admin | None = HazelcastAdmin(registers)
        self._heard = heard
        if heard is not None:  # not at exit: a process that ends takes its connections with it
            weakref.finalize(self, heard.end).atexit = False

    async def close(self) -> None:
        """Give up every connection, also that of who listens; a later call connects again."""
        if self._heard is not None:
            self._heard.end()
        await super().close()


class _Heard:
    """What both flavours have in common: the ring of changes, and who reads it. Where nothing is kept near nobody does,
    and somebody else repeats invalidations.
    """

    def __init__(self, spec: BackendSpec, place: Place) -> None:
        self.maps: BlockingMaps = BlockingMaps(place)
        self.feed: Feed = Feed(spec.namespace)
        speaking = functools.partial(_speaking, feed=self.feed, spec=spec)
        self._thread: HazelcastListener | Payer = (
            HazelcastListener(self.maps, self.feed, spec, lambda maps: _speaker(speaking(maps), spec))
            if spec.coherence.wanted
            else Payer(spec, lambda ended: speaking(self.maps.lent(ended)))
        )

    def end(self) -> None:
        """End the thread, and give up the client; a later call connects again."""
        self._thread.stop()
        drive(self.maps.close())


def build(spec: BackendSpec, flavour: Flavour) -> HazelcastBackend:
    """Build the backend for a URL, without opening anything; raises `ConfigError` for a wrong URL."""
    tables = (spec.namespace, head_of(spec.namespace))
    place = Place(cluster_of(spec.url), tables, ring_of(spec.namespace), spec.timeout, spec.pool_timeout)
    heard = spec.shared(_Heard, lambda: _Heard(spec, place))
    maps: Maps = heard.maps if flavour == "sync" else AwaitingMaps(place)
    return HazelcastBackend(_registers(maps, heard.feed, spec), spec, flavour, heard)


def _registers(maps: Maps, feed: Feed, spec: BackendSpec) -> HazelcastRegisters:
    return HazelcastRegisters(maps, spec.namespace, spec.enveloped, spec.timeout, feed)


def _speaking(maps: BlockingMaps, feed: Feed, spec: BackendSpec) -> HazelcastBackend:
    return HazelcastBackend(_registers(maps, feed, spec), spec, "sync")


def _speaker(backend: HazelcastBackend, spec: BackendSpec) -> Speaker:
    return Speaker(spec.settling(backend), functools.partial(backend.run, fresh=True))
