"""Hazelcast 5, by its own client library: `hazelcast://`."""

import functools
import weakref
from collections.abc import Callable
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
from nearcache.backends.locks import Locks
from nearcache.backends.payer import Payer
from nearcache.backends.registers.backend import RegisterBackend, common_of
from nearcache.backends.registers.locks import RegisterLocks, locks_of
from nearcache.backends.registers.marks import head_of
from nearcache.backends.registers.renewing import Renewer
from nearcache.backends.registers.sessions import sessions_in
from nearcache.backends.registry import BackendSpec


class HazelcastBackend(RegisterBackend):
    """One namespace on a Hazelcast cluster."""

    name: ClassVar[str] = "hazelcast"

    def __init__(
        self, registers: HazelcastRegisters, spec: BackendSpec, flavour: Flavour, heard: "_Heard | None" = None
    ) -> None:
        super().__init__(registers, spec, flavour)
        self._heard = heard
        if heard is not None:
            locks = RegisterLocks(registers, spec.namespace, self.turns, self.inbox, heard.renewer)
            self.locks: Locks | None = locks
            self.admin: Admin | None = HazelcastAdmin(registers, locks)
            # not at exit: a process that ends takes its connections with it
            weakref.finalize(self, heard.end).atexit = False

    async def close(self) -> None:
        """Give up every connection, also that of who listens; a later call connects again."""
        if self._heard is not None:
            self._heard.end()
        await super().close()


class _Heard:
    """What both flavours have in common: the client of those threads that read the ring of changes, and renew locks.
    Where nothing is kept near nobody reads the ring, and somebody else repeats invalidations.
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
        lent = functools.partial(_lent, self.maps, self.feed, spec)
        self.renewer: Renewer = Renewer(lent, common_of(spec).inbox)

    def end(self) -> None:
        """End the threads, and give up the client; a later call connects again."""
        self._thread.stop()
        self.renewer.stop()
        drive(self.maps.close())


def build(spec: BackendSpec, flavour: Flavour) -> HazelcastBackend:
    """Build the backend for a URL, without opening anything; raises `ConfigError` for a wrong URL."""
    tables = tuple(named(spec.namespace) for named in (str, head_of, locks_of, sessions_in))
    place = Place(cluster_of(spec.url), tables, ring_of(spec.namespace), spec.timeout, spec.pool_timeout)
    heard = spec.shared(_Heard, lambda: _Heard(spec, place))
    maps: Maps = heard.maps if flavour == "sync" else AwaitingMaps(place)
    return HazelcastBackend(_registers(maps, heard.feed, spec), spec, flavour, heard)


def _registers(maps: Maps, feed: Feed, spec: BackendSpec) -> HazelcastRegisters:
    return HazelcastRegisters(maps, spec.namespace, spec.enveloped, spec.timeout, feed)


def _lent(maps: BlockingMaps, feed: Feed, spec: BackendSpec, ended: Callable[[], bool]) -> HazelcastRegisters:
    return _registers(maps.lent(ended), feed, spec)


def _speaking(maps: BlockingMaps, feed: Feed, spec: BackendSpec) -> HazelcastBackend:
    return HazelcastBackend(_registers(maps, feed, spec), spec, "sync")


def _speaker(backend: HazelcastBackend, spec: BackendSpec) -> Speaker:
    return Speaker(spec.settling(backend), functools.partial(backend.run, fresh=True))
