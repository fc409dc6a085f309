"""Dates and times in parts, so that zone and fold come back as they were.

ISO 8601 text keeps naive times and fixed offsets. A zone of the IANA database is kept by its key, a named offset with
its name, and `fold` (the second of two equal clock times) beside them. Other kinds of tzinfo are refused: they would
come back as another class.
"""

from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from nearcache.codecs.names import name_of
from nearcache.errors import CodecError

Zone = str | tuple[int, str | None] | None
"""An IANA key, or microseconds east of UTC and the offset's name, or nothing (naive)."""

Moment = TypeVar("Moment", datetime, time)

_MICROSECOND: Final = timedelta(microseconds=1)
_parts: Final = msgspec.msgpack.Decoder(tuple[str, int, Zone])


def is_simple(value: datetime | time) -> bool:
    """Whether ISO 8601 text keeps everything: no fold, and naive or an offset without a name of its own."""
    zone = value.tzinfo
    if value.fold:
        return False
    return zone is None or zone is UTC or (type(zone) is timezone and _name(zone) is None)


def take_apart(value: datetime | time) -> tuple[str, int, Zone]:
    """Return clock time, fold and zone; raises `CodecError` for a kind of tzinfo that would not come back."""
    return value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _take_zone(value.tzinfo)


def put_together(kind: type[Moment], data: bytes) -> Moment:
    """Return what was taken apart."""
    clock, fold, zone = _parts.decode(data)
    return kind.fromisoformat(clock).replace(fold=fold, tzinfo=_put_zone(zone))


def _take_zone(zone: tzinfo | None) -> Zone:
    if zone is None:
        return None
    if type(zone) is timezone:
        return _offset(zone) // _MICROSECOND, _name(zone)
    # A zone from a file has no key; one made without the zone cache is another object than its key gives.
    key: str | None = zone.key if type(zone) is ZoneInfo else None
    if key is not None and ZoneInfo(key) is zone:
        return key
    raise CodecError(
        f"a time zone of type {name_of(type(zone))} would not come back as that type:"
        " use zoneinfo.ZoneInfo(key) or datetime.timezone"
    )


def _put_zone(zone: Zone) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    micros, name = zone
    return timezone(micros * _MICROSECOND) if name is None else timezone(micros * _MICROSECOND, name)


def _offset(zone: timezone) -> timedelta:
    return zone.utcoffset(None)


def _name(zone: timezone) -> str | None:
    name = zone.tzname(None)
    return None if name == timezone(_offset(zone)).tzname(None) else name
