"""What several servers of one engine say of themselves, as if they were one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from nearcache.backends.base import Check, Facts

T = TypeVar("T")


def facts_of_all(each: Sequence[Facts]) -> Facts:
    """Return the facts of several servers as those of one: sums of sizes, and settings where they agree."""
    return Facts(
        used_bytes=_sum([one.used_bytes for one in each]),
        limit_bytes=_sum([one.limit_bytes for one in each]),
        evictions=_sum([one.evictions for one in each]),
        policy=_common([one.policy for one in each]),
        persistent=_common([one.persistent for one in each]),
        version=_common([one.version for one in each]),
    )


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _common(settings: Sequence[T]) -> T | None:
    return settings[0] if len(set(settings)) == 1 else None


def checks_of_all(each: Mapping[str, Sequence[Check]]) -> list[Check]:
    """Return what was found out about several servers, by address, as if they were one: of each thing the worst."""
    found: dict[str, Check] = {}
    for where, checks in each.items():
        for check in checks:
            told = replace(check, found=f"{where}: {check.found}")
            if check.name not in found or _trouble(told) > _trouble(found[check.name]):
                found[check.name] = told
    return list(found.values())


def _trouble(check: Check) -> int:
    return 2 if check.works is False else int(bool(check.advice))


def megabytes(size: int) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1e6:,.1f} MB"
