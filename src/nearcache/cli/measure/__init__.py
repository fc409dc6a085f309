"""How `nearcache bench` measures: in blocks that take turns, each answer checked before it is timed."""
