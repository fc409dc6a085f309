"""Redis and Valkey as a store of bytes: written once, over a link that blocks or awaits."""

import functools
import math
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

from nearcache._core.clock import Clock, EngineTime
from nearcache.backends.base import Admin, Backend, Counters, Item, Leases, LostConnection, Marks, Scan
from nearcache.backends.limits import Limits
from nearcache.backends.locks import Locks
from nearcache.backends.redis import tooling
from nearcache.backends.redis.carrier import Call
from nearcache.backends.redis.dialect import repeatable
from nearcache.backends.redis.errors import (
    MISSHAPEN,
    code_of,
    good,
    in_part,
    parts_of,
    records_of,
    refused,
    unexpected,
    whole,
)
from nearcache.backends.redis.leases import RedisLeases, RedisMarks
from nearcache.backends.redis.limits import RedisLimits
from nearcache.backends.redis.listener import Ears
from nearcache.backends.redis.locks import RedisLocks
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import lease_of
from nearcache.backends.redis.replicas import Lag
from nearcache.backends.redis.sessions import RedisSessions
from nearcache.backends.registry import BackendSpec
from nearcache.backends.sessions import Sessions
from nearcache.backends.transport.dialect import Command
from nearcache.backends.transport.link import Link
from nearcache.errors import BackendError, CodecError
from nearcache.near.view import View

KEEP_ALIVE_EVERY: Final = 3_600.0
"""Seconds after which a process lets the record of marks live on."""

LOOK_AGAIN: Final = 1.0
"""Seconds between two looks for another primary."""

INT64: Final = range(-(2**63), 2**63)


class RedisBackend(Backend):
    """One namespace of a Redis or Valkey server.

    A key whose value is no string (a list or a hash of somebody else) reads as absent and is not touched, except that
    storing replaces it.
    """

    name: ClassVar[str] = "redis"

    def __init__(self, link: Link, listener: "Ears", spec: BackendSpec) -> None:
        self._link = link
        self.listener: Ears = listener
        self.clock: Clock = spec.time.clock
        self._prefix = f"{spec.namespace}:"
        self._lag: Lag | None = spec.common.get(Lag)
        self._asking = False
        self._keep_alive_at = self._look_again_at = -math.inf
        self.time: EngineTime = spec.time
        self.view: View = spec.view
        self.leases: Leases = RedisLeases(self, listener, spec.enveloped)
        self._marks = RedisMarks(self, spec.namespace)
        self.marks: Marks = self._marks
        self.counters: Counters | None = _Counters(self)
        self.locks: Locks | None = RedisLocks(self, listener, spec.timeout)
        self.sessions: Sessions | None = RedisSessions(self)
        self.limits: Limits | None = RedisLimits(self)
        self.scan: Scan | None = tooling.Scan(self.single, self._prefix)
        self.admin: Admin | None = tooling.Admin(self.single, self.together, spec.namespace)

    @property
    def spreads(self) -> bool:
        """Whether it is a cluster."""
        return self._link.spreads

    def lacks(self) -> bool:
        """Tell whether a node of a cluster does not answer."""
        return self._link.lacks()

    async def open(self) -> None:
        """Connect, and learn the engine's time."""
        await self._link.open()
        await self.ping()

    async def close(self) -> None:
        """Give up every connection; a later call connects again."""
        self.listener.stop()
        await self._link.close()
        if self.replicas is not None:
            await self.replicas.close()

    async def get(self, key: str) -> bytes | None:
        """Ask for one record."""
        (reply,) = await self.run(("GET", self._prefix + key))
        if self._lag is not None:
            self._lag.meet((key,))
        if reply is None or type(reply) is bytes:
            return reply
        return None if code_of(reply) == "WRONGTYPE" else unexpected(good(reply, key), key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Ask for records with one command."""
        if not keys:
            return []
        prefix = self._prefix
        (reply,) = await self.run(("MGET", *[prefix + key for key in keys]))
        self.meet(keys)
        return records_of(reply, keys)

    async def remaining(self, keys: Sequence[str]) -> list[float | None]:
        """Ask how many seconds records will live, to the millisecond."""
        if not keys:
            return []
        replies = await self.run(*(("PTTL", self.named(key)) for key in keys))
        return [_life(whole(reply, key)) for reply, key in zip(replies, keys, strict=True)]

    async def set(self, item: Item) -> None:
        """Store one record.

        The lease goes first: a load that stored between the two commands is overwritten by the second.
        """
        key, name = item.key, self._prefix + item.key
        self.listener.sample(key)
        store = ("SET", name, item.raw, "PX", _ms(item.ttl))
        revoked, stored = await self.change((key,), ("DEL", lease_of(name)), store, fresh=True)
        good(revoked, key)
        good(stored, key)

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store records on one trip; not atomic."""
        if not items:
            return
        names = [self._prefix + item.key for item in items]
        stores = [("SET", name, item.raw, "PX", _ms(item.ttl)) for name, item in zip(names, items, strict=True)]
        keys = [item.key for item in items]
        replies = await self.change(keys, ("DEL", *map(lease_of, names)), *stores, fresh=True)
        if any(isinstance(reply, Exception) for reply in replies):
            revoked, *stored = replies
            raise in_part(keys, revoked, stored)

    async def add(self, item: Item, dead: bytes) -> bool:
        """Store a record where there is none, or only a dead one, in one atomic step."""
        name = self.named(item.key)
        calls = [((name, lease_of(name)), (dead, _ms(item.ttl), item.raw))]
        (reply,) = await self.evaluate("add", calls, item.key, changed=(item.key,), fresh=True)
        return bool(reply)

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove records on one trip.

        The leases go first: what a load stored between the two commands is removed by the second, and a load that
        began between them began after this call.
        """
        if not keys:
            return 0
        names = list(map(self.named, keys))
        self.listener.sample(keys[0])
        first, second = await self.change(keys, ("DEL", *map(lease_of, names)), ("DEL", *names))
        if isinstance(first, Exception) or isinstance(second, Exception):
            raise in_part(keys, first, second)
        return whole(second, keys[0])

    async def touch(self, key: str, ttl: float, fill_id: bytes, ages: bytes) -> bool:
        """Give a record a new life, in one atomic step."""
        if fill_id:
            calls = [((self.named(key),), (fill_id, _ms(ttl), ages))]
            (reply,) = await self.evaluate("touch", calls, key, changed=(key,))
        else:
            (reply,) = await self.change((key,), ("PEXPIRE", self.named(key), _ms(ttl)))
        return bool(good(reply, key))

    async def ping(self) -> None:
        """Ask the engine whether it is there."""
        await self.single(("PING",), fresh=True)

    def meet(self, keys: Iterable[str]) -> None:
        """Note that no older state of keys may be seen from now on, not at a replica either."""
        if self._lag is not None:
            self._lag.meet(keys)

    def named(self, key: str) -> str:
        """Return the engine's name of a key."""
        return self._prefix + key

    def run(self, *commands: Command, fresh: bool = False) -> Coroutine[Any, Any, list[Any]]:
        """Send commands together and return the replies; errors of the engine are among them.

        When they are due, the engine's time and the marks of the namespace are asked for on the same trip; the marks
        always if they have to be `fresh`.
        """
        time, view = self.time, self.view
        if (fresh and not view.fixed) or view.due(self._asking) or (time.due() and not (self._asking and time.known)):
            return self._run_and_learn(commands)
        return self._execute(commands)

    async def change(self, keys: Iterable[str], *commands: Command, fresh: bool = False) -> list[Any]:
        """Do as `run` with commands that change keys, and let others know of it, on the same trip and after them.

        A change that others could not be told of has failed.
        """
        call = self.listener.carrier.tell(keys)
        try:
            if call is None:
                replies = await self.run(*commands, fresh=fresh)
            else:
                replies = await self._change_and_tell(commands, call, fresh)
        finally:
            self.meet(keys)
        self._look_for_another_primary(replies)
        return replies

    async def _change_and_tell(self, commands: tuple[Command, ...], call: Call, fresh: bool) -> list[Any]:
        name, rest = call
        code = script(name)
        try:
            if self._link.spreads:  # the announcement would overtake what it announces
                replies = await self.run(*commands, fresh=fresh)
                (told,) = await self.run(("EVALSHA", code.sha, *rest))
            else:
                *replies, told = await self.run(*commands, ("EVALSHA", code.sha, *rest), fresh=fresh)
            if code_of(told) == "NOSCRIPT":
                (told,) = await self.run(("EVAL", code.text, *rest))
        except BaseException:
            self.listener.carrier.rename()  # it may still come to pass
            raise
        if any(isinstance(reply, BackendError) for reply in (*parts_of(replies), told)):  # so may this, at one node
            self.listener.carrier.rename()
        if isinstance(told, Exception):
            error = refused(told, f"{rest[1]}, where others look for changes (bus='stream')")
            error.ambiguous = True
            raise error from told
        return replies

    async def single(self, command: Command, *, fresh: bool = False) -> Any:
        """Send one command and return the reply; raises if the engine refuses."""
        (reply,) = await self.run(command, fresh=fresh)
        return good(reply, str(command[0]))

    def together(self, *commands: Command) -> Coroutine[Any, Any, list[Any]]:
        """Do as `run`, but ask for nothing else on the same trip: for those who are about to learn that."""
        return self._execute(commands)

    async def evaluate(
        self,
        name: str,
        calls: Sequence[tuple[tuple[str, ...], tuple[str | bytes, ...]]],
        subject: str,
        *,
        changed: Sequence[str] = (),
        fresh: bool = False,
    ) -> list[Any]:
        """Do as `replies_of`, but raise if the engine refuses; `subject` is what errors are about."""
        return [good(reply, subject) for reply in await self.replies_of(name, calls, changed=changed, fresh=fresh)]

    async def replies_of(
        self,
        name: str,
        calls: Sequence[tuple[tuple[str, ...], tuple[str | bytes, ...]]],
        *,
        changed: Sequence[str] = (),
        fresh: bool = False,
    ) -> list[Any]:
        """Run the script `name` on keys with arguments, once for each call, on one trip; errors are among the replies.

        `changed` is which keys others must know to have changed ("" for marks).
        """
        code = script(name)
        send = functools.partial(self.change, changed) if changed else self.run
        rests = [(str(len(keys)), *keys, *arguments) for keys, arguments in calls]
        replies = await send(*[("EVALSHA", code.sha, *rest) for rest in rests], fresh=fresh)
        self._look_for_another_primary(replies)
        if missing := [at for at, reply in enumerate(replies) if code_of(reply) == "NOSCRIPT"]:
            again = await send(*[("EVAL", code.text, *rests[at]) for at in missing], fresh=fresh)
            for at, reply in zip(missing, again, strict=True):
                replies[at] = reply
        return replies

    def _look_for_another_primary(self, replies: Sequence[Any]) -> None:
        """Connect anew, now and then, where a replica answers: the name of the engine may lead to another by now."""
        if any(code_of(reply) == "READONLY" for reply in replies) and self.clock() >= self._look_again_at:
            self._look_again_at = self.clock() + LOOK_AGAIN
            self._link.renew()

    async def _execute(self, commands: tuple[Command, ...]) -> list[Any]:
        try:
            replies = self._link.execute(*commands)
            return replies if isinstance(replies, list) else await replies
        except LostConnection:
            if not repeatable(commands):
                raise
        again = self._link.execute(*commands)
        return again if isinstance(again, list) else await again

    async def _run_and_learn(self, commands: tuple[Command, ...]) -> list[Any]:
        asks_time, asks_marks, sent = self.time.due(), not self.view.fixed, self.clock()
        riders = [*([self._marks.news()] if asks_marks else []), *([("TIME",)] if asks_time else [])]
        self._asking = True
        try:
            replies = await self._execute((*commands, *riders))
        finally:
            self._asking = False
        try:
            if asks_time:
                self._learn_time(replies.pop(), sent)
            if asks_marks:
                await self._learn_marks(replies.pop(), sent)
        except BackendError as error:
            # The commands may have been done, which go on the same trip.
            error.ambiguous = error.ambiguous or not all(map(_undone, replies))
            raise
        return replies

    def _learn_time(self, reply: Any, sent: float) -> None:
        received, answer = self.clock(), good(reply, "TIME")
        try:
            seconds, micros = answer
            self.time.observe(sent, received, int(seconds) + int(micros) / 1_000_000)
        except MISSHAPEN:
            unexpected(answer, "TIME")

    async def _learn_marks(self, reply: Any, sent: float) -> None:
        answer = good(reply, self._marks.name)
        try:
            if answer:
                await self._marks.learn(answer, sent)
            else:  # the record is absent, lost, or was put back to an earlier state
                await self._marks.restore()
        except MISSHAPEN:
            unexpected(answer, self._marks.name)
        if self.clock() > self._keep_alive_at:
            self._keep_alive_at = self.clock() + KEEP_ALIVE_EVERY
            with suppress(BackendError):  # a replica may not
                await self.together(self._marks.keep_alive())


class _Counters:
    """Counters as records whose payload the engine adds to."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend

    async def incr(self, key: str, by: int, fresh: bytes, ttl: float, dead: bytes) -> int:
        """Add `by` and return the sum; see `Counters.incr`."""
        if by not in INT64:
            raise CodecError(f"{key}: a step of a counter must fit into 64 bits")
        name = self._backend.named(key)
        calls = [((name, lease_of(name)), (str(by), _ms(ttl), fresh, dead))]
        (reply,) = await self._backend.evaluate("incr", calls, key, changed=(key,), fresh=True)
        if reply is None:
            raise CodecError(f"{key}: the record holds no integer, or the sum does not fit into 64 bits")
        return whole(reply, key)


def _undone(reply: Any) -> bool:
    return isinstance(reply, BackendError) and not reply.ambiguous


def _ms(seconds: float) -> str:
    return str(max(1, math.floor(seconds * 1000)))


def _life(pttl: int) -> float | None:
    if pttl == -2:
        return None
    return math.inf if pttl < 0 else pttl / 1000
