"""What touches the engine while it is under way, one for each flavour: blocks when they begin or end, and pages."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager

from nearcache._engine.engine import Engine
from nearcache._engine.held import Claim, Held
from nearcache._engine.locks import Locking
from nearcache._io.blocking import drive


@contextmanager
def transaction(engine: Engine) -> Generator[None]:
    """Collect what the block changes; send or drop it in the end."""
    collected = engine.begin()
    try:
        with collected.collecting():
            yield
    finally:
        try:
            drive(engine.end(collected))
        except BaseException as error:
            collected.interrupted(error)
            raise


@asynccontextmanager
async def async_transaction(engine: Engine) -> AsyncGenerator[None]:
    """Collect what the block changes; send or drop it in the end."""
    collected = engine.begin()
    try:
        with collected.collecting():
            yield
    finally:
        try:
            await engine.end(collected)
        except BaseException as error:
            collected.interrupted(error)
            raise


@contextmanager
def lock(locks: Locking, claim: Claim) -> Generator[Held]:
    """Hold a lock during the block."""
    had = drive(locks.acquire(claim))
    try:
        yield Held(had)
    except BaseException as error:
        drive(locks.give_back(had, error))
        raise
    drive(locks.give_back(had, None))


@asynccontextmanager
async def async_lock(locks: Locking, claim: Claim) -> AsyncGenerator[Held]:
    """Hold a lock during the block."""
    had = await locks.acquire(claim)
    try:
        yield Held(had)
    except BaseException as error:
        await locks.give_back(had, error)
        raise
    await locks.give_back(had, None)


def pages(engine: Engine, prefix: str) -> Iterator[str]:
    """Bring keys, a page at a time."""
    cursor: str | None = None
    while cursor != "":
        cursor, keys = drive(engine.page(cursor or "", prefix))
        yield from keys


async def async_pages(engine: Engine, prefix: str) -> AsyncIterator[str]:
    """Bring keys, a page at a time."""
    cursor: str | None = None
    while cursor != "":
        cursor, keys = await engine.page(cursor or "", prefix)
        for key in keys:
            yield key
