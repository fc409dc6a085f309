"""Locks in Redis and Valkey: who hold one, its last token and those who wait for it are in one slot of a cluster, so
that one script decides.

The lock `payment:42` of the namespace `app` has the records `{app:payment:42}~k`, `~t`, `~q` and `~a`.
"""

import math
from typing import TYPE_CHECKING, Any, Final

from nearcache.backends.locks import LOCK_CLAIM, LOCK_PATIENCE, LockAsk, LockGrant
from nearcache.backends.redis.errors import unexpected
from nearcache.backends.redis.listener import Ears
from nearcache.backends.redis.names import lock_of
from nearcache.backends.renewal import Renewal
from nearcache.near.inbox import Mail

if TYPE_CHECKING:
    from nearcache.backends.redis.backend import RedisBackend

TIMES: Final = (str(int(LOCK_PATIENCE * 1000)), str(int(LOCK_CLAIM * 1000)))


class RedisLocks:
    """The port of locks."""

    def __init__(self, backend: "RedisBackend", listener: Ears) -> None:
        self._backend = backend
        self._listener = listener

    async def acquire(self, ask: LockAsk) -> LockGrant:
        """Ask for a lock; the message that it is free comes on the channel of this process."""
        channel = self._listener.channel() if ask.waits else ""
        life = str(math.floor(ask.life * 1000))
        reply = await self._evaluate(
            "lock_acquire", ask.name, ask.owner, ask.fair, life, _flag(ask.waits), channel, str(ask.most)
        )
        return _granted(reply, ask.name)

    async def release(self, name: str, owner: str, fair: bool) -> bool:
        """Give a lock back."""
        return bool(await self._evaluate("lock_release", name, owner, fair) == 1)

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

    async def _evaluate(self, script: str, name: str, owner: str, fair: bool, *arguments: str) -> Any:
        records = lock_of(self._backend.named(name))
        (reply,) = await self._backend.evaluate(script, [(records, (owner, _flag(fair), *TIMES, *arguments))], name)
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
