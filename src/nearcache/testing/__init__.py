"""For tests: a clock you move, engines that fail on demand, and the suite that every backend has to pass.

from nearcache import Cache
from nearcache.testing import FakeClock

clock = FakeClock()
cache = Cache("memory://", clock=clock)
cache.set("users:1", "Ada", ttl="1h")
clock.advance("2h")
assert cache.get("users:1") is None
"""

from nearcache.testing.clock import FakeClock
from nearcache.testing.conformance import BackendConformance
from nearcache.testing.faults import Faults, FaultyBackend, faults

__all__ = ["BackendConformance", "FakeClock", "Faults", "FaultyBackend", "faults"]
