"""Whether a value that came back is the one that went in: same types, same content, at every depth."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, time
from decimal import Decimal
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from nearcache.codecs.names import name_of
from nearcache.codecs.structure import field_names, is_pydantic, is_structured

_SIMPLE: Final = frozenset({type(None), bool, int, str, bytes})


def difference(before: object, after: object, path: str = "") -> str | None:
    """Return where and how the two differ (types and places, never content), or None if they are the same."""
    kind: Any = type(before)
    if type(after) is not kind:
        return f"{path or 'the value'}: {name_of(kind)} would come back as {name_of(type(after))}"
    if kind in _SIMPLE:
        return None if before == after else _changed(path, kind)
    return _by_kind(kind, before, after, path)


def _changed(path: str, kind: type) -> str:
    return f"{path or 'the value'}: a {name_of(kind)} would come back changed"


def _by_kind(kind: Any, before: Any, after: Any, path: str) -> str | None:
    if is_structured(kind):
        return _structures(kind, before, after, path)
    compare = next((compare for base, compare in _CONTAINERS.items() if issubclass(kind, base)), None)
    if compare is not None:
        return compare(before, after, path)
    return None if _equal_leaves(before, after) else _changed(path, kind)


def _sequences(before: Sequence[object], after: Sequence[object], path: str) -> str | None:
    if len(before) != len(after):
        return _changed(path, type(before))
    return _first(difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(before, after, strict=True)))


def _mappings(before: Mapping[object, object], after: Mapping[object, object], path: str) -> str | None:
    """Compare pair by pair: the order of a dict is part of it."""
    keys = _sequences(list(before), list(after), f"{path}.keys()")
    return keys or _sequences(list(before.values()), list(after.values()), f"{path}.values()")


def _sets(before: AbstractSet[object], after: AbstractSet[object], path: str) -> str | None:
    if len(before) != len(after) or not _pair_off(before - after, [*after - before]):
        return _changed(path, type(before))
    # An intersection would not say from which of the two its items are.
    partners = {item: item for item in after}
    return _first(difference(item, partners[item], f"{path}{{}}") for item in before if item in partners)


def _pair_off(lost: Iterable[object], gained: list[object]) -> bool:
    """Whether each lost item is the same as one that was gained, though not equal to it: nan equals nothing."""
    for item in lost:
        partner = next((other for other in gained if difference(item, other) is None), None)
        if partner is None:
            return False
        gained.remove(partner)
    return True


_CONTAINERS: Final[Mapping[type, Callable[[Any, Any, str], str | None]]] = {
    list: _sequences,
    tuple: _sequences,
    dict: _mappings,
    set: _sets,
    frozenset: _sets,
}


def _structures(kind: Any, before: Any, after: Any, path: str) -> str | None:
    found = _first(
        difference(getattr(before, name, None), getattr(after, name, None), f"{path}.{name}")
        for name in field_names(kind)
    )
    return found or (_hidden(before, after, path) if is_pydantic(kind) else None)


def _hidden(before: Any, after: Any, path: str) -> str | None:
    """Compare what a pydantic model holds beside its fields."""
    names = ("__pydantic_extra__", "__pydantic_private__")
    return _first(
        difference(getattr(before, name, None), getattr(after, name, None), f"{path}.{name}") for name in names
    )


def _equal_leaves(before: Any, after: Any) -> bool:
    if isinstance(before, float):
        return before == after or (_is_nan(before) and _is_nan(after))
    if isinstance(before, Decimal):
        # Equal numbers can have different digits, and NaN equals nothing.
        return before.as_tuple() == cast("Decimal", after).as_tuple()
    if isinstance(before, (datetime, time)):
        return before == after and before.fold == after.fold and _same_zone(before, after)
    return bool(before == after)


def _same_zone(before: Any, after: Any) -> bool:
    zone, other = before.tzinfo, after.tzinfo
    if isinstance(zone, ZoneInfo):
        return isinstance(other, ZoneInfo) and zone.key == other.key
    return type(zone) is type(other) and before.utcoffset() == after.utcoffset()


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _first(differences: Iterable[str | None]) -> str | None:
    return next((found for found in differences if found is not None), None)
