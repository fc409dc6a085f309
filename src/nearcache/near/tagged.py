"""Which served values have which tags."""

from collections.abc import Iterable

from nearcache.near.slot import Slot


class Tagged:
    """An index from tags to slots; its owner's lock must be held."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[str, set[Slot]] = {}

    def add(self, slot: Slot) -> None:
        """Let a slot be found by its tags."""
        for tag in slot.tags:
            self._slots.setdefault(tag, set()).add(slot)

    def discard(self, slot: Slot) -> None:
        """Let a slot be found no more."""
        for tag in slot.tags:
            slots = self._slots.get(tag)
            if slots is not None:
                slots.discard(slot)
                if not slots:
                    del self._slots[tag]

    def lower(self, tags: Iterable[str], deadline: float) -> None:
        """Serve the values of these tags until `deadline`, and let them be found no more; O(values of these tags)."""
        for tag in tags:
            for slot in self._slots.get(tag, ()):
                slot.deadline = deadline
            self._slots.pop(tag, None)  # last: an interrupt before that leaves them to be found again

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
