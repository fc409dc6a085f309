"""What Memcached servers say about themselves, for metrics and for the doctor."""

from collections.abc import Mapping, Sequence
from typing import Final

from nearcache.backends.base import Check, Facts
from nearcache.backends.memcached import dialect
from nearcache.backends.memcached.dialect import Refusal
from nearcache.backends.memcached.errors import refused
from nearcache.backends.memcached.registers import Heard, Order, Servers
from nearcache.backends.several import checks_of_all, facts_of_all, megabytes
from nearcache.errors import BackendError

Told = Mapping[str, str]

SMALLEST: Final = 32_768
"""Bytes that a server has to take in one record, so that the records of what was invalidated fit."""

GONE: Final = "start it, or take it out of url (CACHE_URL): until it answers its keys are loaded again and again"
REFUSES: Final = "it refuses writes when it is full; start it without -M"
TOO_SMALL: Final = "what was invalidated may not fit into a record; start it with a larger -I (1m is usual)"
NOT_ALIKE: Final = "start all servers with the same -I: a value that is too large for one is an error there"
FIXED: Final = "nobody is told of changes: near values live for `staleness`"
EJECTED: Final = (
    "the keys of a server that does not answer go to the others, and old values may be read from then on (eject=yes)"
)


class Admin:
    """The answers of all servers; `where` are their addresses."""

    def __init__(self, servers: Servers, where: Sequence[str], *, ejects: bool) -> None:
        self._servers = servers
        self._where = where
        self._ejects = ejects

    async def facts(self) -> Facts:
        """Return the sums of what all servers say."""
        told = await self._ask("")
        return facts_of_all([_facts(_good(each)) for each in told])

    async def examine(self, *, forgets: bool) -> list[Check]:
        """Ask every server of the list about itself; it begins empty, so that there is nothing to forget."""
        told = dict(zip(self._where, zip(await self._ask(""), await self._ask("settings"), strict=True), strict=True))
        there = {
            where: (stats, settings)
            for where, (stats, settings) in told.items()
            if not isinstance(stats, BackendError) and not isinstance(settings, BackendError)
        }
        each = {where: [_memory(*both)] for where, both in there.items()}
        found = [_servers({where: stats for where, (stats, _) in told.items()})]
        found += (
            checks_of_all(each) if len(self._where) > 1 else [check for checks in each.values() for check in checks]
        )
        found += [_records([settings for _, settings in there.values()])] if there else []
        found.append(Check("near", None, FIXED))
        return [*found, Check("eject", None, EJECTED)] if self._ejects else found

    async def _ask(self, about: str) -> list[Told | BackendError]:
        """Ask all servers at once for their "settings", or about themselves ("")."""
        orders = {number: Order([dialect.stats(about)]) for number in range(len(self._where))}
        heard = await self._servers.send(orders)
        return [_told(heard[number], where) for number, where in enumerate(self._where)]


def _told(heard: Heard | BackendError, where: str) -> Told | BackendError:
    if isinstance(heard, BackendError):
        return heard
    (reply,) = heard.replies
    if isinstance(reply, Refusal):
        return refused(str(reply), where)
    told: Told = reply
    return told


def _good(told: Told | BackendError) -> Told:
    if isinstance(told, BackendError):
        raise told
    return told


def _facts(told: Told) -> Facts:
    return Facts(
        used_bytes=_number(told.get("bytes")),
        limit_bytes=_number(told.get("limit_maxbytes")),
        evictions=_number(told.get("evictions")),
        policy=None,
        persistent=False,
        version=told.get("version"),
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _servers(told: Mapping[str, Told | BackendError]) -> Check:
    """Tell which servers answer, of which version they are, and since when."""
    dead = [
        each.why if where in each.why else f"{where}: {each.why}"
        for where, each in told.items()
        if isinstance(each, BackendError)
    ]
    if dead:
        return Check("servers", False, "; ".join(dead), GONE)
    lives = [_life(where, each) for where, each in told.items() if not isinstance(each, BackendError)]
    return Check("servers", True, "; ".join(lives))


def _life(where: str, told: Told) -> str:
    return f"{where} is a Memcached {told.get('version')}, started {_number(told.get('uptime')):,} s ago"


def _memory(told: Told, settings: Told) -> Check:
    """Judge what happens when a server is full."""
    used, limit = (megabytes(_number(told.get(name))) for name in ("bytes", "limit_maxbytes"))
    found = f"{used} of {limit} used, {_number(told.get('evictions')):,} records evicted"
    return Check("memory", True, found, REFUSES if settings.get("evictions") == "off" else "")


def _records(settings: Sequence[Told]) -> Check:
    """Judge how large records may be."""
    sizes = sorted(_number(each.get("item_size_max")) for each in settings)
    least, most = sizes[0], sizes[-1]
    found = f"of at most {least:,} bytes" + ("" if least == most else f"; of {most:,} on other servers")
    return Check("records", True, found, TOO_SMALL if least < SMALLEST else NOT_ALIKE if least < most else "")
