"""What a cache offers to take turns: `Locks` for threads, `AsyncLocks` for asyncio."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ParamSpec, TypeVar

from nearcache import _blocks, decorate
from nearcache._core.ttl import TTL
from nearcache._engine.engine import Engine
from nearcache._engine.held import Claim, Held
from nearcache._engine.locks import Locking
from nearcache.errors import LockLostError
from nearcache.options import Duration

P = ParamSpec("P")
R = TypeVar("R")


class RwLock:
    """A lock that many hold to read, or one to write; the block of `with` is `reading()` or `writing()`."""

    def __init__(self, locks: Locking, read: Claim, write: Claim) -> None:
        self._locks = locks
        self._read = read
        self._write = write

    def __repr__(self) -> str:
        return f"<{self._read}>"

    def reading(self) -> AbstractContextManager[Held]:
        """Hold it during the block, with all others who read, while nobody writes."""
        return _blocks.lock(self._locks, self._read)

    def writing(self) -> AbstractContextManager[Held]:
        """Hold it during the block, alone: nobody else reads or writes meanwhile."""
        return _blocks.lock(self._locks, self._write)


class Locks:
    """The part of a cache by which threads, processes and hosts take turns."""

    _engine: Engine

    def lock(
        self,
        name: str,
        ttl: TTL = 60,
        *,
        wait: Duration = 10,
        fair: bool = False,
        on_loss: Callable[[LockLostError], object] | None = None,
        replicas: int = 0,
    ) -> AbstractContextManager[Held]:
        """Hold a lock during the block, which nobody else has meanwhile: no thread, task, process or host.

        `with cache.lock("payment:42") as held:`. The lock is renewed while the block runs. It is not re-entrant.

        Args:
            name: like a key, but it may have one part; a key of the same name is something else.
            ttl: how long the lock outlives a holder that died, at least 1 second.
            wait: how long to wait for it, at most; 0 does not wait.
            fair: those who wait get it in the order in which they came.
            on_loss: called with the `LockLostError` when the lock is lost while the block runs; in a thread of its own.
            replicas: how many replicas have to have acknowledged it before the block begins, on Redis and Valkey.

        `held.token` grows with each acquisition, by whomever: hand it to what you write to, and have that refuse older
        ones. `held.token` and `held.check()` raise `LockLostError` if the lock may be another's by now, and so does the
        end of the block. With `AsyncCache` a loss cancels the task that holds the lock, and the block raises that
        error.

        Raises:
            LockNotAcquiredError: somebody else had it for `wait` seconds, or too few replicas acknowledged it.
            BackendError: the engine does not answer, or refuses.
            UnsupportedError: the engine has no locks, or no replicas; raised by the call itself, before the block.
            ConfigError: a wrong `ttl`, `wait` or `replicas`.

        """
        locks = self._engine.locks
        return _blocks.lock(locks, locks.terms(ttl, wait, fair, on_loss, replicas=replicas)(name))

    def semaphore(
        self,
        name: str,
        permits: int,
        ttl: TTL = 60,
        *,
        wait: Duration = 10,
        fair: bool = False,
        on_loss: Callable[[LockLostError], object] | None = None,
    ) -> AbstractContextManager[Held]:
        """Hold one of so many permits during the block: no more than `permits` such blocks run at a time, anywhere.

        `with cache.semaphore("exports", 3):`. The permit is renewed while the block runs, and lost as a lock is; that
        of a holder that died is free after `ttl`. Give the same number everywhere: while programs differ, those who ask
        go by the smaller of their own number and that of whoever got the last permit.

        Args:
            name: like a key, but it may have one part; a lock of the same name is something else.
            permits: how many may be held at a time, at least 1.
            ttl: how long a permit outlives a holder that died, at least 1 second.
            wait: how long to wait for one, at most; 0 does not wait.
            fair: those who wait get one in the order in which they came.
            on_loss: called with the `LockLostError` when the permit is lost while the block runs; in a thread of its
                own.

        `held.token` grows with each permit that is handed out, and `held.check()` raises `LockLostError` if the permit
        may be another's by now.

        Raises:
            LockNotAcquiredError: others had all permits for `wait` seconds.
            BackendError: the engine does not answer, or refuses.
            UnsupportedError: the engine has no locks; raised by the call itself, before the block.
            ConfigError: a wrong number of permits, `ttl` or `wait`.

        """
        locks = self._engine.locks
        return _blocks.lock(locks, locks.permits(ttl, wait, fair, on_loss, permits)(name))

    def rwlock(
        self,
        name: str,
        ttl: TTL = 60,
        *,
        wait: Duration = 10,
        on_loss: Callable[[LockLostError], object] | None = None,
    ) -> RwLock:
        """Return a lock that many can hold to read at a time, and one to write, alone.

        `with cache.rwlock("catalogue").reading() as held:`, or `.writing()`. Each holder has a lease of its own, which
        is renewed while its block runs, and lost as that of a lock is. It is not re-entrant, and one who reads cannot
        go on to write: they would wait for themselves.

        Who waits is served in the order in which they came, so that those who read cannot keep out one who writes.

        Args:
            name: like a key, but it may have one part; a lock of the same name is something else.
            ttl: how long it outlives a holder that died, at least 1 second.
            wait: how long to wait for it, at most; 0 does not wait.
            on_loss: called with the `LockLostError` when it is lost while the block runs; in a thread of its own.

        `held.token` grows with each acquisition. What is written can refuse the older tokens of those who wrote.

        Raises:
            LockNotAcquiredError: by the block, if others had it for `wait` seconds.
            BackendError: by the block, if the engine does not answer, or refuses.
            UnsupportedError: the engine has no locks.
            ConfigError: a wrong `ttl` or `wait`.

        """
        locks = self._engine.locks
        return RwLock(locks, *locks.sides(name, ttl, wait, on_loss))

    def exclusive(
        self,
        template: str,
        ttl: TTL = 60,
        *,
        wait: Duration = 10,
        fair: bool = False,
        on_loss: Callable[[LockLostError], object] | None = None,
        replicas: int = 0,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function so that of the calls with the same name one runs at a time.

        Each holds the lock of that name, such as "payment:{order_id}", while the function runs; options are those of
        `lock`. Parameters that the template does not name do not count. A call raises what `lock` and its block raise.
        """
        return decorate.exclusive(
            self._engine, template, self._engine.locks.terms(ttl, wait, fair, on_loss, replicas=replicas)
        )


class AsyncRwLock:
    """The twin of `RwLock` for asyncio, with the same names and meaning."""

    def __init__(self, locks: Locking, read: Claim, write: Claim) -> None:
        self._locks = locks
        self._read = read
        self._write = write

    def __repr__(self) -> str:
        return f"<{self._read}>"

    def reading(self) -> AbstractAsyncContextManager[Held]:
        """Hold it during the block, with all others who read, while nobody writes."""
        return _blocks.async_lock(self._locks, self._read)

    def writing(self) -> AbstractAsyncContextManager[Held]:
        """Hold it during the block, alone: nobody else reads or writes meanwhile."""
        return _blocks.async_lock(self._locks, self._write)


class AsyncLocks:
    """The twin of `Locks` for asyncio, with the same names, arguments and meaning."""

    _engine: Engine

    def lock(
        self,
        name: str,
        ttl: TTL = 60,
        *,
        wait: Duration = 10,
        fair: bool = False,
        on_loss: Callable[[LockLostError], object] | None = None,
        replicas: int = 0,
    ) -> AbstractAsyncContextManager[Held]:
        """Hold a lock during the block, which nobody else has meanwhile: no thread, task, process or host."""
        locks = self._engine.locks
        return _blocks.async_lock(locks, locks.terms(ttl, wait, fair, on_loss, replicas=replicas)(name))

    def semaphore(
        self,
        name: str,
        permits: int,
        ttl: TTL = 60,
        *,
        wait: Duration = 10,
        fair: bool = False,
        on_loss: Callable[[LockLostError], object] | None = None,
    ) -> AbstractAsyncContextManager[Held]:
        """Hold one of so many permits during the block: no more than `permits` such blocks run at a time, anywhere."""
        locks = self._engine.locks
        return _blocks.async_lock(locks, locks.permits(ttl, wait, fair, on_loss, permits)(name))

    def rwlock(
        self,
        name: str,
        ttl: TTL = 60,
        *,
        wait: Duration = 10,
        on_loss: Callable[[LockLostError], object] | None = None,
    ) -> AsyncRwLock:
        """Return a lock that many can hold to read at a time, and one to write, alone."""
        locks = self._engine.locks
        return AsyncRwLock(locks, *locks.sides(name, ttl, wait, on_loss))

    def exclusive(
        self,
        template: str,
        ttl: TTL = 60,
        *,
        wait: Duration = 10,
        fair: bool = False,
        on_loss: Callable[[LockLostError], object] | None = None,
        replicas: int = 0,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """Decorate a function so that of the calls with the same name one runs at a time."""
        return decorate.exclusive(
            self._engine, template, self._engine.locks.terms(ttl, wait, fair, on_loss, replicas=replicas)
        )
