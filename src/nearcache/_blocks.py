"""Blocks that touch the engine when they begin or end, one for each flavour."""

from collections.abc import AsyncGenerator, Generator
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
