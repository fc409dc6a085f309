"""Fixtures of tests that kill real processes, or stand in their way."""

from tests.embedded_world import world
from tests.integration.redis.conftest import namespace
from tests.promises.conftest import alarm, new_cache

__all__ = ["alarm", "namespace", "new_cache", "world"]
