"""Labels of bounded number: a metric must not grow with the data."""

from typing import Final

MAX_ENTITIES: Final = 100
OTHER: Final = "other"


class EntityLabels:
    """Gives each of the first 100 entities its own label, and all later ones "other"."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def label(self, entity: str) -> str:
        """Return the label of an entity."""
        known = self._known.get(entity)
        if known is not None:
            return known
        if len(self._known) >= MAX_ENTITIES:
            return OTHER
        return self._known.setdefault(entity, entity)
