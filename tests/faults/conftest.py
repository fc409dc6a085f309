"""Fixtures of tests that kill real processes."""

from tests.embedded_world import world

__all__ = ["world"]
