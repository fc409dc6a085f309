"""Leases and marks in Redis and Valkey: the rights to store what was loaded, and the stamps of invalidations.

For a key `app:users:1` the lease is `{app:users:1}~l` and its waiters are `{app:users:1}~w`, all in one slot of a
cluster, so one script decides. The marks of the namespace are in `{app}~m`, in a slot of their own: no script can look
at both, which is why readers judge values by marks themselves.
"""

import functools
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nearcache.backends.base import BACK_OFF, Ask, Fill, Grant, Item, NotServing, identity_of
from nearcache.backends.redis.errors import MISSHAPEN, good, in_part, unexpected
from nearcache.backends.redis.listener import Ears
from nearcache.backends.redis.lua import script
from nearcache.backends.redis.names import lease_of, marks_of, waiters_of
from nearcache.backends.renewal import Renewal
from nearcache.backends.transport.dialect import Command
from nearcache.codecs.envelope import FILL_ID
from nearcache.near.inbox import Mail

if TYPE_CHECKING:
    from nearcache.backends.redis.backend import RedisBackend

T = TypeVar("T")

LEASE_LIFE: Final = 5.0
"""Seconds until the lease of a loader that died is free; a living one renews it."""

MOST_MARKS: Final = 100_000
"""Tags whose marks the engine keeps; values that are older than a forgotten mark count as invalid."""

MARKS_LIFE: Final = 30 * 86_400.0
"""Seconds until the record of marks is dropped if nobody uses it."""

AT_ONCE: Final = 1_000
"""Marks that are read with one request."""

Call = tuple[str, tuple[str | bytes, ...]]
"""A key, and the arguments of a script about it."""

NOT_MARKED: Final = 0
"""What the script answers that did not mark, because the record has lost marks."""

MARK_TRIES: Final = 10
"""How often marks are given back to the engine before a new one is given up."""

CLEAR: Final = "~clear"
PURGE: Final = "~purge"
TAG: Final = "t:"


class RedisLeases:
    """The port of leases."""

    life: float = LEASE_LIFE

    def __init__(self, backend: "RedisBackend", listener: Ears, enveloped: bool) -> None:
        self._backend = backend
        self._listener = listener
        self._enveloped = enveloped
        self._kind = "1" if enveloped else "0"

    def identity(self, raw: bytes | None) -> bytes:
        """Return the fill id of a record, or the digest of one without a header; as the scripts do."""
        if raw is None:
            return b""
        if self._enveloped:
            return identity_of(raw[FILL_ID])
        return identity_of(hashlib.sha1(raw, usedforsecurity=False).hexdigest().encode())

    async def acquire(self, asks: Sequence[Ask]) -> list[Grant]:
        """Ask for leases and for the marks on one trip."""
        inbox = self._listener.channel()
        calls = [(ask.key, (ask.token, _ms(ask.life), ask.seen, inbox, self._kind)) for ask in asks]
        try:
            return await self._evaluate("acquire", calls, _granted)
        finally:
            self._backend.meet([ask.key for ask in asks])

    async def steal(self, ask: Ask) -> bytes:
        """Take the lease, and ask for the marks on the same trip."""
        calls = [(ask.key, (ask.token, _ms(ask.life), self._kind))]
        (seen,) = await self._evaluate("steal", calls, _seen)
        return seen

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        """Store what the leases still allow, and ask for the marks on the same trip."""
        calls = [(f.item.key, (f.token, f.seen, _ms(f.item.ttl), f.item.raw, self._kind)) for f in fills]
        changed = [f.item.key for f in fills if f.replaces]
        try:
            return await self._evaluate("fill", calls, _accepted, changed)
        finally:
            self._backend.meet([f.item.key for f in fills])

    async def commit(self, item: Item, token: str) -> bool:
        """Store under a lease, or remove."""
        calls = [(item.key, (token, _ms(item.ttl), item.raw))]
        (accepted,) = await self._evaluate("commit", calls, _accepted, (item.key,))
        return accepted

    async def release(self, key: str, token: str, outcome: str, back_off: float = 0.0) -> None:
        """End a lease, and wake those who wait."""
        pause = _ms(back_off) if back_off else "0"
        await self._evaluate("release", [(key, (token, outcome, pause, BACK_OFF))], _accepted, fresh=False)

    def hold(self, key: str, token: str, until: float) -> None:
        """Have the listener renew a lease."""
        self._listener.hold(
            token, Renewal(lease_of(self._backend.named(key)), self.life, until, time.monotonic(), "renew")
        )

    def let_go(self, token: str) -> None:
        """Renew a lease no longer."""
        self._listener.let_go(token)

    def expect(self, key: str) -> Mail:
        """Begin to listen for the end of a key's lease."""
        return self._listener.inbox.expect(self._backend.named(key))

    async def _evaluate(
        self,
        name: str,
        calls: Sequence[Call],
        read: Callable[[Any, str], T],
        changed: Sequence[str] = (),
        *,
        fresh: bool = True,
    ) -> list[T]:
        """Run a script for each call, and return what its replies say; where some fail, the error has the others'."""
        keys = [key for key, _ in calls]
        named = [(self._backend.named(key), arguments) for key, arguments in calls]
        on = [((key, lease_of(key), waiters_of(key)), arguments) for key, arguments in named]
        replies = await self._backend.replies_of(name, on, changed=changed, fresh=fresh)
        about = list(zip(replies, keys, strict=True))
        if any(isinstance(reply, Exception) for reply in replies):
            raise in_part(keys, [reply if isinstance(reply, Exception) else read(reply, key) for reply, key in about])
        return [read(reply, key) for reply, key in about]


class RedisMarks:
    """The port of marks."""

    def __init__(self, backend: "RedisBackend", namespace: str) -> None:
        self._backend = backend
        self.name: str = marks_of(namespace)

    async def mark(self, tags: Sequence[str], everything: bool) -> None:
        """Mark, and learn what is new since on the same trip."""
        members = [*([CLEAR] if everything else []), *(TAG + tag for tag in tags)]
        evaluate = functools.partial(self._backend.evaluate, "mark", subject=self.name, changed=("",), fresh=True)
        for _ in range(MARK_TRIES):
            if NOT_MARKED not in await evaluate(self._calls(members)):
                return
            await self.restore()
        raise NotServing(f"{self.name}: the engine forgets marks as soon as they are given back")

    def _calls(self, members: Sequence[str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        # No more get one stamp than are read at once, or everybody would read them again and again.
        shares = [members[start : start + AT_ONCE // 2] for start in range(0, len(members), AT_ONCE // 2)]
        return [((self.name,), (*self._known(), str(MOST_MARKS), *share)) for share in shares]

    def _known(self) -> tuple[str, ...]:
        view = self._backend.view
        return str(view.last), str(view.known_from), _ms(MARKS_LIFE)

    async def restore(self) -> None:
        """Give the record back what it may have lost, and learn what is new on the same trip.

        Where there is no record, or it lost what nobody knows here, whatever is older is invalid from then on.
        """
        sent = self._backend.clock()
        replies = await self._backend.together(*self._restoring(), self.news())
        *behind, answer = [good(reply, self.name) for reply in replies]
        try:
            await self.learn(answer, sent, anew=any(behind))
        except MISSHAPEN:
            unexpected(answer, self.name)

    def _restoring(self) -> list[Command]:
        """Return the commands that give the record the marks back that are known here, the newest last."""
        view = self._backend.view
        marks = [*((TAG + tag, stamp) for tag, stamp in view.marks()), (CLEAR, view.clear), (PURGE, view.purge)]
        known = sorted((stamp, member) for member, stamp in marks if stamp)
        shares = [known[start : start + AT_ONCE] for start in range(0, len(known), AT_ONCE)] or [[]]
        first = ("EVAL", script("restore").text, "1", self.name, *self._known())
        return [(*first, *(text for stamp, member in share for text in (str(stamp), member))) for share in shares]

    async def ask(self, tags: Sequence[str]) -> None:
        """Let the view learn about single tags.

        Where everything was marked, or the record is gone, it knows nothing of tags that were marked before.
        """
        view = self._backend.view
        known_from = view.known_from
        members = [CLEAR, PURGE, *(TAG + tag for tag in tags)]
        reply = await self._backend.single(("ZMSCORE", self.name, *members))
        try:
            clear, purge, *scores = [_stamp(score) for score in reply]
            marks = dict(zip(tags, scores, strict=True))
        except MISSHAPEN:
            unexpected(reply, self.name)
        view.answer(marks, max(clear or view.last, purge), known_from)

    def news(self) -> Command:
        """Return the command that asks for everything since the newest stamp known, and for that itself.

        So a healthy record never answers with nothing.
        """
        since = str(self._backend.view.last)
        return ("ZREVRANGEBYSCORE", self.name, "+inf", since, "WITHSCORES", "LIMIT", "0", str(AT_ONCE))

    def keep_alive(self) -> Command:
        """Return the command that lets the record live on."""
        return ("PEXPIRE", self.name, _ms(MARKS_LIFE))

    async def learn(self, reply: Any, sent: float, *, anew: bool = False) -> None:
        """Take in the answer to `news`; begin anew with it where older marks may be there that are not known."""
        view = self._backend.view
        if not anew and len(reply) == 1 and reply[0][1] == view.last:  # nearly always: one mark, the one that is known
            view.confirm(sent)
            return
        scores = _scores(reply)
        full = len(scores) >= AT_ONCE
        if not scores:
            raise NotServing(f"{self.name}: the engine does not keep it; is it full?")
        clear, purge = scores.pop(CLEAR, 0), scores.pop(PURGE, 0)
        marks = {name.removeprefix(TAG): stamp for name, stamp in scores.items()}
        if full or anew:
            (floors,) = await self._backend.together(("ZMSCORE", self.name, CLEAR, PURGE))
            clear, purge = map(max, map(_stamp, good(floors, self.name)), (clear, purge))
        take_in = view.restart if full else view.learn
        take_in(sent, marks, clear, purge)
        if anew:
            view.forget()


def _granted(reply: Any, key: str) -> Grant:
    match reply:
        case [b"LEAD"]:
            return Grant(leads=True)
        case [b"VALUE", bytes(raw)]:
            return Grant(raw=raw)
        case [b"WAIT", int(left), bytes(holder)]:
            return Grant(left=max(0, left) / 1000, holder=holder.decode("ascii", "replace"))
        case _:
            return unexpected(reply, key)


def _seen(reply: Any, key: str) -> bytes:
    return reply if type(reply) is bytes else unexpected(reply, key)


def _accepted(reply: Any, _key: str) -> bool:
    return bool(reply == 1)


def _scores(reply: Any) -> dict[str, int]:
    """Read members with scores: pairs in RESP3, one after the other in RESP2."""
    pairs = reply if not reply or isinstance(reply[0], list) else zip(reply[::2], reply[1::2], strict=True)
    return {member.decode("utf-8", "replace"): _stamp(score) for member, score in pairs}


def _stamp(score: Any) -> int:
    return 0 if score is None else int(float(score))


def _ms(seconds: float) -> str:
    return str(max(1, math.floor(seconds * 1000)))
