"""One cache in one flavour: the parts of the engine put together."""

import functools
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from nearcache._core.missing import MISS, Missing
from nearcache._core.outcome import Outcome
from nearcache._core.queued import Queued
from nearcache._core.settings import TTL_CLASSES
from nearcache._core.ttl import TTL
from nearcache._engine.batch import Batch, Batches, LoadMany
from nearcache._engine.commands import Commands
from nearcache._engine.core import Core
from nearcache._engine.health import Health
from nearcache._engine.limits import Limiting
from nearcache._engine.load import Loads
from nearcache._engine.locks import Locking
from nearcache._engine.plan import Job, Plan, plan
from nearcache._engine.read import Reader
from nearcache._engine.restore import restore
from nearcache._engine.sessions import SessionVerbs
from nearcache._engine.tags import Tags
from nearcache._engine.transaction import (
    Transaction,
    TransactionBatches,
    TransactionLoads,
    TransactionReader,
    TransactionWriter,
    open_in,
)
from nearcache._engine.warm import Pace, Warmed, warm
from nearcache._engine.write import Tagger, Writer
from nearcache._io.port import Io, require_callable
from nearcache.backends.base import Backend, require
from nearcache.codecs.schema import Schema
from nearcache.errors import BackendError, BatchError, ConfigError
from nearcache.options import LoadOptions

T = TypeVar("T")
Keys = list[str]


class Verbs(NamedTuple):
    """What reads, writes and loads."""

    reader: Reader
    writer: Writer
    loads: Loads
    batches: Batches


class Engine:
    """What the methods of a cache call."""

    def __init__(self, core: Core, io: Io, backend: Backend) -> None:
        self.core: Core = core
        self.io: Io = io
        self.use(backend)

    def use(self, backend: Backend) -> None:
        """Work with this backend from now on."""
        core, io = self.core, self.io
        self.backend: Backend = backend
        self._commands = commands = Commands(core, backend)
        reader = Reader(core, backend, commands)
        writer = Writer(core, backend, commands, reader)
        loads = Loads(core, io, backend, commands, reader, writer)
        self._plain = Verbs(reader, writer, loads, Batches(core, io, backend, commands, reader, writer, loads))
        self.locks: Locking = Locking(core, io, backend, commands)
        self.sessions: SessionVerbs = SessionVerbs(core, backend, commands)
        self.limits: Limiting = Limiting(core, io, backend, commands)
        reader = TransactionReader(core, backend, commands)
        writer = TransactionWriter(core, backend, commands, reader)
        loads = TransactionLoads(core, io, backend, commands, reader, writer)
        batches = TransactionBatches(core, io, backend, commands, reader, writer, loads)
        self._inside = Verbs(reader, writer, loads, batches)

    @contextmanager
    def replaced(self, backend: Backend) -> Generator[None]:
        """Work with a stand-in inside the block. Who listens has a line to the real engine, and pays no debts there."""
        core, real, pays_ahead = self.core, self.backend, self.core.pays_ahead
        core.pays_ahead = False
        self.use(backend)
        try:
            yield
        finally:
            self.use(real)
            core.pays_ahead = pays_ahead

    # Outside of transactions and memos nobody has to look for them.

    @property
    def reader(self) -> Reader:
        """What reads for the running code."""
        return self._plain.reader if self.core.plain else self._inside.reader

    @property
    def writer(self) -> Writer:
        """What writes for the running code."""
        return self._plain.writer if self.core.plain else self._inside.writer

    @property
    def loads(self) -> Loads:
        """What loads for the running code."""
        return self._plain.loads if self.core.plain else self._inside.loads

    @property
    def batches(self) -> Batches:
        """What loads many keys for the running code."""
        return self._plain.batches if self.core.plain else self._inside.batches

    def begin(self) -> Transaction:
        """Return what will collect the changes of a block of the running code; see `Transaction.collecting`."""
        return Transaction(self.core, open_in(self.core))

    async def end(self, transaction: Transaction) -> None:
        """Do what becomes of a block that has ended."""
        await transaction.end(self.writer)

    async def open(self) -> None:
        """Connect ahead of the first use; raises when the engine cannot be reached."""
        core = self.core
        if core.snapshot is not None:
            await self.io.aside(core.read_snapshot)
        await self._commands.insisting.run("open", self.backend.open)
        if core.near.left:
            await restore(core, self.io, self._plain.reader)

    async def close(self) -> None:
        """Give up every connection of this flavour, and leave what is near for the next process."""
        try:
            if self.core.snapshot is not None:
                await self.io.aside(self.core.write_snapshot)
        finally:
            await self.backend.close()

    async def health(self) -> Health:
        """Ask the engine whether it is there, and say what else is wrong."""
        core = self.core
        used, rules = core.ttl_classes_used, core.options.ttl_rules
        unused = tuple(sorted(name for name in rules.classes if name not in used and name not in TTL_CLASSES))
        error = await self._silence()
        coherent, seconds, why = core.coherence.told() if core.coherence.wanted else (None, 0.0, None)
        silent = 0.0 if (outage := core.outage) is None else outage.lasted(core.clock())
        return Health(error is None, error, core.loads.stuck(), unused, coherent, seconds, why, core.owed, silent)

    async def _silence(self) -> str | None:
        """Return why the engine does not answer, None if it does."""
        try:
            await self._commands.insisting.run("ping", self.backend.ping)
        except BackendError as error:
            return error.why
        except ConfigError as error:  # a file that TLS needs may be gone since
            return str(error)
        return None

    def ask_again(self) -> None:
        """Let the next call ask an engine that did not answer, however short ago that was."""
        if (outage := self.core.outage) is not None:
            outage.abandoned(self.core.clock())

    async def page(self, cursor: str, prefix: str) -> tuple[str, Keys]:
        """List some keys; see `Scan.page`."""
        scan = require(self.backend.scan, self.backend, "listing of keys", "memory, embedded, redis")
        return await self._commands.run("scan", scan.page, cursor, prefix)

    async def delete_one(self, key: str) -> bool | Queued:
        """Remove one value; tell whether there was one."""
        removed = await self.writer.delete([key])
        return removed if isinstance(removed, Queued) else removed > 0

    async def write_through(
        self, key: str, source: Callable[[], Any], value: Any, plan: Plan, tag: Tagger
    ) -> Outcome[Any]:
        """Write the source, then the cache; see `Writer.write_through`."""
        return await self.writer.write_through(self.io, key, source, value, plan.ttl, plan.schema, tag)

    async def write_value_through(
        self, key: str, store: Callable[[Any], Any], value: Any, ttl: TTL, tags: Iterable[str]
    ) -> Outcome[Any]:
        """Write a value to its source, then to the cache; one that cannot be cached is refused before it is written."""
        require_callable(store, "store")
        tag = Tags(self.core, tags).tagger()
        self.writer.draft(self.core.check(key), value, 1.0, None)
        return await self.write_through(key, functools.partial(store, value), value, plan(self.core, ttl, {}), tag)

    async def get_or_load(
        self, key: str, loader: Callable[[], Any], ttl: TTL, tags: Iterable[str], options: LoadOptions
    ) -> Outcome[Any]:
        """Return the cached value, or what the loader returns; see `Loads.get_or_load`."""
        job = Job(loader, plan(self.core, ttl, options), Tags(self.core, tags).tagger())
        return await self.loads.get_or_load(key, job)

    async def get_or_load_many(
        self, keys: Iterable[str], loader: LoadMany, ttl: TTL, tags: Iterable[str], options: LoadOptions
    ) -> dict[str, Any]:
        """Return the cached values and those that the loader returns for the missing keys; see `Batches`."""
        tagger = Tags(self.core, tags).tagger()
        names = {key: key for key in self.core.check_all(keys)}
        batch = Batch(names, loader, plan(self.core, ttl, options), lambda _: tagger)
        return gathered(names, await self.batches.get_or_load(batch))

    async def warm(
        self,
        keys: Iterable[str],
        loader: LoadMany,
        ttl: TTL,
        tags: Iterable[str],
        pace: Pace,
        progress: Callable[[Warmed], object] | None,
        options: LoadOptions,
    ) -> Warmed:
        """Load what is not fresh of many keys, batch after batch; see `warm`."""
        require_callable(loader, "loader_many")
        if progress is not None:
            require_callable(progress, "progress")
        tagger, load_plan = Tags(self.core, tags).tagger(), plan(self.core, ttl, options)

        async def ask(some: list[str], note: LoadMany) -> dict[str, Outcome[Any]]:
            names = {key: key for key in self.core.check_all(some)}
            return await self.batches.get_or_load(Batch(names, note, load_plan, lambda _: tagger))

        ready = functools.partial(self._commands.run, "ping", self.backend.ping)
        return await warm(self.io, ask, keys, loader, pace, ready, progress)

    def near_lookup(self, schema: Schema | None) -> Callable[[str], Any]:
        """Return what finds near values of one declared type (None: of any)."""
        if not self.core.keeps:
            return _nothing
        lookup = self.core.near.lookup
        return lookup if schema is None else functools.partial(self.core.near.lookup_as, schema)


def _nothing(_key: str) -> Missing:
    return MISS


def gathered(keys: Mapping[T, str], outcomes: Mapping[str, Outcome[Any]]) -> dict[T, Any]:
    """Return the values by item; `BatchError` with those and the errors if there are any."""
    told = {item: outcomes[key] for item, key in keys.items() if key in outcomes}
    errors = {item: outcome.error for item, outcome in told.items() if outcome.error is not None}
    values = {item: outcome.get() for item, outcome in told.items() if item not in errors}
    if not errors:
        return values
    first = next(iter(errors))
    kind = type(errors[first]).__name__
    what = f"{len(errors)} of {len(keys)} loads failed, the first for {keys[first]!r} with {kind}"
    raise BatchError(what, values, errors) from errors[first]
