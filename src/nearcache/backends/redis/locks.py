"""Locks in Redis and Valkey: who hold one, its last token and those who wait for it are in one slot of a cluster, so
that one script decides.

The lock `payment:42` of the namespace `app` has the records `{app:payment:42}~k`, `~t`, `~q` and `~a`.
"""

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from nearcache.backends.locks import LOCK_CLAIM, LOCK_PATIENCE, LockAsk, LockGrant
from nearcache.backends.redis.errors import code_of, good, unexpected, whole
from nearcache.backends.redis.listener import Ears
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import lock_of
from nearcache.backends.renewal import Renewal
from nearcache.near.inbox import Mail

if TYPE_CHECKING:
    from nearcache.backends.redis.backend import RedisBackend

TIMES: Final = (str(int(LOCK_PATIENCE * 1000)), str(int(LOCK_CLAIM * 1000)))

PATIENCE: Final = 0.25
"""The share of a call's time for which replicas are waited for: so long may others wait on a connection that is shared.
"""


class RedisLocks:
    """The port of locks; replicas are waited for during a share of `timeout`, the seconds that a call may take."""

    def __init__(self, backend: "RedisBackend", listener: Ears, timeout: float) -> None:
        self._backend = backend
        self._listener = listener
        self._patience = max(1, int(timeout * PATIENCE * 1000))
        self.replicated: bool = backend.name == "redis"  # an embedded engine has none

    async def acquire(self, ask: LockAsk) -> LockGrant:
        """Ask for a lock; the message that it is free comes on the channel of this process."""
        channel = self._listener.channel() if ask.waits else ""
        life = str(math.floor(ask.life * 1000))
        arguments = ask.owner, _flag(ask.fair), *TIMES, life, _flag(ask.waits), channel, str(ask.most)
        if ask.replicas:
            return await self._acknowledged(ask, arguments)
        return _granted(await self._evaluate("lock_acquire", ask.name, arguments), ask.name)

    async def _acknowledged(self, ask: LockAsk, arguments: tuple[str, ...]) -> LockGrant:
        """Ask for a lock, and wait for replicas behind it, on the same connection: they acknowledge what it wrote."""
        records, code, replies = lock_of(self._backend.named(ask.name)), script("lock_acquire"), list[Any]()
        for script_of in (("EVALSHA", code.sha), ("EVAL", code.text)):
            take = (*script_of, str(len(records)), *records, *arguments)
            replies = await self._backend.together(take, ("WAIT", str(ask.replicas), str(self._patience)))
            if code_of(replies[0]) != "NOSCRIPT":
                break
        reply, count = (good(each, ask.name) for each in replies)
        grant = _granted(reply, ask.name)
        return msgspec.structs.replace(grant, replicas=whole(count, ask.name)) if grant.token else grant

    async def release(self, name: str, owner: str, fair: bool) -> bool:
        """Give a lock back."""
        return bool(await self._evaluate("lock_release", name, (owner, _flag(fair), *TIMES)) == 1)

    def keep(self, name: str, owner: str, life: float, sent: float) -> Renewal:
        """Have the listener renew a lock."""
        record, *_ = lock_of(self._backend.named(name))
        return self._listener.hold(owner, Renewal(record, life, math.inf, sent, "lock_renew"))

    def let_go(self, owner: str) -> None:
        """Renew a lock no longer."""
        self._listener.let_go(owner)

    def expect(self, owner: str) -> Mail:
        """Begin to listen."""
        return self._listener.inbox.expect(owner)

    async def _evaluate(self, what: str, name: str, arguments: tuple[str, ...]) -> Any:
        (reply,) = await self._backend.evaluate(what, [(lock_of(self._backend.named(name)), arguments)], name)
        return reply


def _flag(true: bool) -> str:
    return "1" if true else "0"


def _granted(reply: Any, name: str) -> LockGrant:
    match reply:
        case [b"HELD", bytes(token)] if token.isdigit():
            return LockGrant(int(token))
        case [b"WAIT", int(left)]:
            return LockGrant(left=left / 1000)
        case _:
            return unexpected(reply, name)
