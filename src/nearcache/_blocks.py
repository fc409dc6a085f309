"""Blocks that touch the engine when they end, one for each flavour."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from nearcache._engine.engine import Engine
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
