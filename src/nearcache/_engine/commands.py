"""Every command to the engine passes here: debts are paid first, time is taken, losing and finding the engine is
noticed. While it does not answer, calls are answered at once, but for single ones that look whether it is back.

A *debt* is a key whose record in the engine may be wrong because a write to it failed half-way: it must be deleted
before anybody reads it again. Debts are paid as soon as the engine answers; until then their keys are misses for
this process. An engine that answers but refuses to delete (a replica, a full disk) goes on serving all other keys.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from time import perf_counter
from typing import ParamSpec, TypeVar

from nearcache._core.events import Command, EngineBack, EngineLost, EngineRefused, EngineSize, Failure, Spared
from nearcache._core.outage import Outage
from nearcache._engine.core import Core
from nearcache.backends.base import GONE, UNTOLD, Admin, Backend, EngineReplaced, failing, is_silence
from nearcache.errors import BackendError, BackendUnavailableError
from nearcache.near.view import ALL, KNOWN

P = ParamSpec("P")
T = TypeVar("T")

FACTS_EVERY = 15.0
"""Seconds between two questions about the engine's size."""


DEBTS_AT_ONCE = 500
"""Debts that are paid with one command."""

PAY_AGAIN = 1.0
"""Seconds after which an engine that refused to delete is asked again."""


class Commands:
    """Sends commands to one backend; `spares` it those that cannot be answered, as far as is known."""

    def __init__(self, core: Core, backend: Backend, *, spares: bool = True) -> None:
        self._core = core
        self._backend = backend
        self._spares = spares
        self._insisting = Commands(core, backend, spares=False) if spares else None

    @property
    def insisting(self) -> "Commands":
        """What sends them whatever is known."""
        return self._insisting or self

    async def run(self, operation: str, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Send one command; raises what the backend raises."""
        core, started = self._core, perf_counter()
        if (outage := core.outage) is not None and self._spares and not self._backend.lacks():
            return await self._look(outage, operation, call, *args, **kwargs)
        try:
            if (core.debts or core.view.owed) and started >= core.pay_from:
                await self._pay(started)
                core.coherence.seek()  # not where who listens pays: it may have been told to end
            reply = await call(*args, **kwargs)
        except EngineReplaced:
            reply = await self._again(operation, started, call, *args, **kwargs)
        except BackendError as error:
            self._failed(operation, started, error)
            raise
        core.emit(Command(operation, perf_counter() - started, False))
        if core.outage is not None:
            self._answered()
        if started >= core.facts_due and self._backend.admin is not None and not self._backend.lacks():
            await self._take_size(self._backend.admin, started)
        return reply

    async def _look(
        self, outage: Outage, operation: str, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Send one command for all to an engine that does not answer; raises at once if somebody else does, or did
        lately.
        """
        clock = self._core.clock
        if not outage.lets_through(clock()):
            self._core.emit(Spared(operation))
            raise BackendUnavailableError(f"the {self._backend.name} engine: {outage.described(clock())}").undone()
        try:
            return await self.insisting.run(operation, call, *args, **kwargs)
        except BaseException as error:
            report = outage.failed if is_silence(error) else outage.abandoned
            report(clock())
            raise

    async def _again(
        self, operation: str, started: float, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Send a command again after what another engine has to be told."""
        try:
            await self._settle()
            self._core.coherence.seek()
            return await call(*args, **kwargs)
        except BackendError as error:
            self._failed(operation, started, error)
            raise

    async def settle(self) -> None:
        """Send what is owed to an engine that has just answered, without waiting for the next command; raises if it is
        gone.
        """
        if self._core.pays_ahead:
            await self._settle()

    async def _settle(self) -> None:
        core = self._core
        if core.debts or core.view.owed:
            await self._pay(perf_counter())
        if core.outage is not None:
            self._answered()

    async def _take_size(self, admin: Admin, now: float) -> None:
        """Ask the engine how full it is, now and then; not worth an error."""
        self._core.facts_due = now + FACTS_EVERY
        with suppress(BackendError):
            facts = await admin.facts()
            self._core.emit(EngineSize(facts.used_bytes, facts.limit_bytes))
            self._core.count_engine_evictions(facts.evictions)

    async def _pay(self, now: float) -> None:
        """Mark and delete what is owed; raises if the engine is gone, but not if it refuses.

        That one cannot be done, or not at one node, keeps nothing else from being done.
        """
        core = self._core
        for pay in (self._pay_marks, self._pay_deletions):
            try:
                await pay()
            except EngineReplaced:
                raise
            except GONE as error:
                if not self._backend.spreads:
                    raise error.undone() from None
                core.pay_from = now + PAY_AGAIN
            except BackendError as error:
                core.pay_from = now + PAY_AGAIN
                core.emit(EngineRefused(self._backend.name, error.why))

    async def _pay_marks(self) -> None:
        # In batches, so that a call costs no more while many debts wait for an engine that is gone.
        while marks := _some(self._core.view.owed):
            await self._mark_again({tag for tag, _ in marks})
            self._core.view.paid(marks)

    async def _pay_deletions(self) -> None:
        left, gone = 0, None
        while owed := _some(self._core.debts, left):
            try:
                await self._delete(owed)
            except GONE as error:
                if isinstance(error, EngineReplaced) or not self._backend.spreads:
                    raise
                gone, left = error, left + sum(key in self._core.debts for key, _ in owed)
        if gone is not None:
            raise gone

    async def _delete(self, owed: Sequence[tuple[str, object]]) -> None:
        """Delete what is owed; of several nodes, some may do so and others fail."""
        keys = [key for key, _ in owed]
        try:
            await self._backend.delete(keys)
        except BackendError as error:
            failed = failing(error, keys)
            self._core.paid([debt for debt in owed if debt[0] not in failed])
            raise
        self._core.paid(owed)

    async def _mark_again(self, owed: set[str]) -> None:
        if KNOWN in owed:
            await self._backend.marks.restore()
        if tags := owed - {KNOWN}:
            await self._backend.marks.mark(list(tags - {ALL}), ALL in tags)

    def _failed(self, operation: str, started: float, error: BackendError) -> None:
        core = self._core
        core.emit(Command(operation, perf_counter() - started, failed=True))
        core.emit(Failure("engine", "", type(error).__name__))
        if is_silence(error):
            self._silent(error)
        elif not isinstance(error, UNTOLD):
            if core.outage is not None:
                self._answered()
            core.emit(EngineRefused(self._backend.name, error.why))

    def _silent(self, error: BackendError) -> None:
        core, options = self._core, self._core.options
        if core.outage is None:
            patience = options.pool_timeout + 2 * options.timeout
            core.outage = Outage(core.clock(), error.why, patience)
            core.emit(EngineLost(self._backend.name, error.why))

    def _answered(self) -> None:
        if self._backend.lacks():
            return
        self._core.outage = None
        self._core.flights.let_go()  # what was kept may be older than this answer
        self._core.emit(EngineBack(self._backend.name))


def _some(debts: Mapping[str, object], first: int = 0) -> list[tuple[str, object]]:
    """Return some debts, from the `first` on.

    Another thread may make or pay one meanwhile: the list's tuples can start a collection of garbage, whose finalizers
    let other threads run.
    """
    while True:
        with suppress(RuntimeError):
            return list(islice(debts.items(), first, first + DEBTS_AT_ONCE))
