"""The in-process tier: thread-safe, bounded, with expiry and eviction, and one flight per key."""
