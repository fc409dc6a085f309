"""Functions that run one call at a time: `@cache.exclusive`, in both flavours."""

import threading
from typing import Any

import pytest

from nearcache import AsyncCache, Cache, ConfigError, InvalidKeyError, LockNotAcquiredError
from tests.faces import Awaited
from tests.promises.helpers import Crowd, eventually, values


@pytest.fixture(params=[Cache, AsyncCache])
def face(request: pytest.FixtureRequest) -> Awaited:
    """A cache in memory of either flavour."""
    return Awaited(request.param("memory://", observers=()))


class Desk:
    """Notes which of its calls overlap."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.calls = list[Any]()
        self.open = threading.Event()
        self.open.set()

    def pay(self, order_id: int, cents: int = 0) -> str:
        """Be called."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.calls.append((order_id, cents))
        self.open.wait(20)
        self.inside -= 1
        return f"{order_id}: {cents}"


async def test_a_call_returns_what_the_function_does_and_holds_the_lock_meanwhile(face: Awaited):
    def pay(order_id: int, cents: int = 0) -> str:
        """Pay."""
        with pytest.raises(LockNotAcquiredError), Cache.lock(twin, f"payment:{order_id}", wait=0):
            pass
        with Cache.lock(twin, "payment:43", wait=0):
            return f"{order_id}: {cents}"

    twin = face.cache if not face.is_async else face.cache.sync
    run = face.awaited(face.cache.exclusive("payment:{order_id}")(face.loader(pay)))
    assert await run(42, cents=7) == "42: 7"
    assert await run(order_id=42) == "42: 0"
    async with face.lock("payment:42", wait=0):
        pass


async def test_an_error_is_the_callers_and_the_lock_is_free(face: Awaited):
    def pay(order_id: int) -> None:
        raise KeyError(order_id)

    run = face.awaited(face.cache.exclusive("payment:{order_id}")(face.loader(pay)))
    with pytest.raises(KeyError, match="42"):
        await run(42)
    async with face.lock("payment:42", wait=0):
        with pytest.raises(LockNotAcquiredError, match=r"'payment:42' is held by somebody else, after 0\.2 s"):
            await face.awaited(face.cache.exclusive("payment:{order_id}", wait="200ms")(face.loader(pay)))(42)


def test_threads_come_one_after_the_other() -> None:
    cache, desk = Cache("memory://", observers=()), Desk()
    pay = cache.exclusive("payment:{order_id}", ttl="1m", fair=True)(desk.pay)
    assert len(values(Crowd().threads(30, lambda: pay(42)).start().finish())) == 30
    assert desk.most == 1
    desk.open.clear()
    two = Crowd().threads(1, lambda: pay(1)).threads(1, lambda: pay(2)).start()
    eventually(lambda: desk.inside == 2, "others are not waited for")
    desk.open.set()
    two.finish()


async def test_methods_and_what_python_knows_of_them(face: Awaited):
    exclusive = face.cache.exclusive

    class Desks:
        """Pay."""

        @exclusive("payment:{order_id}")
        @face.loader
        def pay(self: Any, order_id: int) -> Any:
            """Pay at a desk."""
            return self, order_id

        @staticmethod
        @exclusive("static:{order_id}")
        @face.loader
        def static(order_id: int) -> Any:
            return order_id

        @exclusive("outer:{order_id}")
        @staticmethod
        @face.loader
        def outer(order_id: int) -> Any:
            return order_id

        @exclusive("class:{order_id}")
        @classmethod
        @face.loader
        def of(cls: Any, order_id: int) -> Any:
            return cls, order_id

    desks = Desks()
    assert await face.awaited(desks.static)(1) == await face.awaited(desks.outer)(1) == 1
    assert await face.awaited(desks.of)(1) == (Desks, 1)
    pay: Any = exclusive("payment:{order_id}")(face.loader(lambda self, order_id: (self, order_id)))
    assert await face.awaited(pay)(desks, 1) == (desks, 1)


def test_what_cannot_be_decorated(face: Awaited):
    exclusive = face.cache.exclusive

    def pay(order_id: int) -> None: ...

    with pytest.raises(TypeError, match=r'needs a key template: @cache\.exclusive\("payment:\{order_id\}"\)'):
        exclusive(pay)
    with pytest.raises(ConfigError, match="has no parameter 'order'"):
        exclusive("payment:{order}")(face.loader(pay))
    with pytest.raises(ConfigError, match="ttl"):
        exclusive("payment:{order_id}", ttl=0.1)
    with pytest.raises(TypeError, match="only functions"):
        exclusive("payment:{order_id}")(7)

    async def apay(order_id: int) -> None: ...

    with pytest.raises(TypeError):
        exclusive("payment:{order_id}")(pay if face.is_async else apay)


async def test_an_argument_cannot_be_another_lock(face: Awaited):
    def pay(order_id: str) -> str:
        return order_id

    run = face.awaited(face.cache.exclusive("payment:{order_id}", wait=0)(face.loader(pay)))
    async with face.lock("payment:42:refund", wait=0):
        assert await run("42:refund") == "42:refund"
    with pytest.raises(InvalidKeyError):
        await run("x" * 300)
