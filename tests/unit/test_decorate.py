"""Decorated functions: keys of calls, kinds of functions, and what is refused at decoration."""

import asyncio
import copy
import dataclasses
import enum
import functools
import inspect
import pickle
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from nearcache import AsyncCache, BatchError, Cache, CodecError, ConfigError, InvalidKeyError

cache = Cache("memory://", namespace="decorate")
acache = cache.aio


@dataclasses.dataclass(frozen=True)
class User:
    """A row."""

    id: int


calls: list[object] = []


@cache.cached("users:{user_id}:{lang}")
def user_name(user_id: int, lang: str = "en") -> str:
    """Return a name."""
    calls.append(user_id)
    return f"{user_id}-{lang}"


@acache.cached("async_users:{user_id}")
async def fetch_user(user_id: int) -> User:
    """Fetch a user."""
    calls.append(user_id)
    return User(user_id)


class Repository:
    """Methods of every kind."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant

    @cache.cached("repo:{self.tenant}:{user_id}")
    def get(self, user_id: int) -> str:
        """Read one."""
        calls.append(user_id)
        return f"{self.tenant}/{user_id}"

    @acache.cached("repo_async:{self.tenant}:{user_id}")
    async def fetch(self, user_id: int) -> str:
        """Fetch one."""
        calls.append(user_id)
        return f"{self.tenant}/{user_id}"

    @classmethod
    @cache.cached("repo_class:{n}", ignore=("cls",))
    def of_class(cls, n: int) -> str:
        """Belong to the class."""
        return f"{cls.__name__}/{n}"

    @staticmethod
    @cache.cached("repo_static:{n}")
    def static(n: int) -> int:
        """Belong to nobody."""
        return n

    @cache.cached("repo_outer:{n}", ignore="cls")
    @classmethod
    def outer(cls, n: int) -> str:
        """Be decorated the other way round."""
        return f"{cls.__name__}/{n}"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    cache.delete_many(list(cache.scan()))


def test_a_call_has_one_key_however_its_arguments_are_passed() -> None:
    keys = {
        user_name.key(1),
        user_name.key(user_id=1),
        user_name.key(1, "en"),
        user_name.key(1, lang="en"),
        user_name.key(lang="en", user_id=1),
        user_name.key(cast(Any, "1")),
    }
    assert keys == {"users:1:en"}
    assert user_name(1) == user_name(user_id=1) == user_name(1, "en") == "1-en"
    assert calls == [1]


def test_a_call_that_does_not_fit_the_function_is_a_type_error() -> None:
    for wrong in (lambda: user_name(), lambda: user_name(1, "en", 3), lambda: user_name(1, nope=2)):  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            wrong()
    assert calls == []


def test_a_variable_number_of_arguments_makes_a_key_of_its_own() -> None:
    @cache.cached("sum:{first}:{rest}:{names}")
    def total(first: int, *rest: int, **names: int) -> int:
        return first + sum(rest) + sum(names.values())

    assert total(1) == 1
    assert total(1, 2) == 3
    assert total(1, 2, 3) == 6
    assert total(1, 2, extra=4) == 7
    assert len({total.key(1), total.key(1, 2), total.key(1, 2, 3), total.key(1, 2, extra=4)}) == 4


def test_values_of_other_types_never_share_a_near_value() -> None:
    @cache.cached("kinds:{value}")
    def kind(value: Any) -> str:
        return type(value).__name__

    assert [kind(value) for value in (1, True, 1.0, None, "None", b"1", (1,), [1])] == [
        "int", "bool", "float", "NoneType", "str", "bytes", "tuple", "list",
    ]  # fmt: skip
    assert kind("1") == "int"


def test_the_verbs_work_on_the_same_value() -> None:
    assert user_name.peek(7) is None
    assert calls == []
    user_name.set("seven", 7)
    assert user_name(7) == user_name.peek(7) == cache.get("users:7:en") == "seven"
    assert user_name.bypass(7) == "7-en"
    assert user_name(7) == "seven"
    assert user_name.refresh(7) == "7-en"
    assert user_name(7) == "7-en"
    assert user_name.invalidate(7) is True
    assert user_name.invalidate(7) is False
    assert user_name.peek(7) is None


async def test_the_verbs_work_on_coroutine_functions() -> None:
    assert await fetch_user.peek(7) is None
    await fetch_user.set(User(70), 7)
    assert await fetch_user(7) == await fetch_user.peek(7) == User(70)
    assert await fetch_user.bypass(7) == User(7)
    assert await fetch_user.refresh(7) == User(7)
    assert await fetch_user.invalidate(7) is True
    assert fetch_user.key(7) == "async_users:7"
    assert await fetch_user.many([7, 8, 7]) == {7: User(7), 8: User(8)}


def test_many_loads_only_what_is_missing() -> None:
    user_name(2)
    calls.clear()
    assert user_name.many([1, 2, 3, 2]) == {1: "1-en", 2: "2-en", 3: "3-en"}
    assert calls == [1, 3]
    assert user_name.many([]) == {}


def test_many_reports_each_failure_and_keeps_what_succeeded() -> None:
    @cache.cached("odd:{n}")
    def odd(n: int) -> int:
        if n % 2 == 0:
            raise ValueError(f"{n} is even")
        return n

    with pytest.raises(BatchError, match="1 of 3 loads failed") as caught:
        odd.many([1, 2, 3])
    assert caught.value.values == {1: 1, 3: 3}
    assert isinstance(caught.value.errors[2], ValueError)
    assert odd.peek(3) == 3


def test_methods_keep_instances_apart() -> None:
    one, two = Repository("one"), Repository("two")
    assert [one.get(1), two.get(1), one.get(1)] == ["one/1", "two/1", "one/1"]
    assert len(calls) == 2
    assert one.get.key(1) == "repo:one:1"
    assert one.get.invalidate(1) is True
    assert two.get.peek(1) == "two/1"
    assert one.get.many([1, 2]) == {1: "one/1", 2: "one/2"}
    assert Repository.get(one, 1) == "one/1"
    assert Repository.get.key(two, 1) == "repo:two:1"


async def test_methods_may_be_coroutine_functions() -> None:
    one = Repository("one")
    assert await asyncio.gather(*[one.fetch(1) for _ in range(10)]) == ["one/1"] * 10
    assert calls == [1]
    assert await one.fetch.invalidate(1) is True


def test_class_and_static_methods_work_in_both_orders() -> None:
    class ChildOf(Repository):
        pass

    # type checkers do not see through classmethod around an object
    parent, child, instance = cast(Any, Repository), cast(Any, ChildOf), cast(Any, Repository("x"))
    assert parent.of_class(1) == instance.of_class(1) == "Repository/1"
    assert child.of_class(1) == "Repository/1", "cls is ignored on purpose"
    assert parent.static(2) == instance.static(2) == 2
    assert parent.static.key(2) == "repo_static:2"
    assert parent.outer(3) == "Repository/3"


def test_a_decorated_function_looks_like_the_function() -> None:
    assert cast(Any, user_name).__name__ == "user_name"
    assert user_name.__doc__ == "Return a name."
    assert str(inspect.signature(user_name)) == "(user_id: int, lang: str = 'en') -> str"
    assert user_name.__wrapped__(9) == "9-en"
    assert str(inspect.signature(Repository("x").get)) == "(user_id: int) -> str"
    assert str(inspect.signature(Repository.get)) == "(self, user_id: int) -> str"
    assert cast(Any, Repository("x").get).__name__ == "get"


def test_coroutine_functions_are_seen_as_such() -> None:
    for function in (fetch_user, Repository.fetch, Repository("x").fetch):
        assert inspect.iscoroutinefunction(function)
        assert asyncio.iscoroutinefunction(function)
    assert not inspect.iscoroutinefunction(user_name)
    assert not inspect.iscoroutinefunction(Repository("x").get)


def test_decorated_functions_pickle_by_name() -> None:
    for function in (user_name, fetch_user, Repository.get):
        assert pickle.loads(pickle.dumps(function)) is function
    bound = pickle.loads(pickle.dumps(Repository("pickled").get))
    assert bound(5) == "pickled/5"
    for verb in (user_name.refresh, fetch_user.refresh, Repository.get.refresh, Repository("pickled").get.refresh):
        assert pickle.loads(pickle.dumps(verb)).__name__ == "refresh"
    assert pickle.loads(pickle.dumps(user_name.refresh))(4) == "4-en"


def test_a_function_run_again_in_a_notebook_replaces_the_old_one() -> None:
    def cell(factor: int) -> Any:
        @dataclasses.dataclass
        class Row:
            n: int

        @cache.cached("cell:{n}", returns=Row)
        def scaled(n: int) -> Row:
            return Row(n * factor)

        return scaled, Row

    first, first_row = cell(1)
    assert first(2) == first_row(2)
    second, second_row = cell(10)
    assert isinstance(second(2), second_row), "the value is read as the class of the new cell"
    assert second.refresh(2) == second_row(20)


def test_a_parameter_that_is_not_in_the_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="'lang'"):

        @cache.cached("users:{user_id}")
        def bad(user_id: int, lang: str) -> str:
            return lang

    with pytest.raises(ConfigError, match="'self'"):

        class Bad:
            @cache.cached("users:{user_id}")
            def get(self, user_id: int) -> int:
                return user_id


def test_names_that_are_no_parameters_are_refused() -> None:
    for template, ignore in (("users:{nope}", ()), ("users:{n}", ("nope",))):
        with pytest.raises(ConfigError, match="'nope'"):

            @cache.cached(template, ignore=ignore)
            def bad(n: int) -> int:
                return n


def test_the_wrong_flavour_is_a_type_error_that_names_the_right_one() -> None:
    async def coroutine(n: int) -> int:
        return n

    def plain(n: int) -> int:
        return n

    with pytest.raises(TypeError, match="AsyncCache"):
        cache.cached("x:{n}")(coroutine)
    with pytest.raises(TypeError, match=r"cache\.sync"):
        acache.cached("x:{n}")(plain)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="AsyncCache"):
        cache.writes("x:{n}")(coroutine)


def test_generators_and_bare_decorators_are_type_errors() -> None:
    def generator(n: int) -> Any:
        yield n

    async def async_generator(n: int) -> Any:
        yield n

    for face, function in ((cache, generator), (acache, async_generator)):
        with pytest.raises(TypeError, match="generator"):
            face.cached("x:{n}")(function)
    with pytest.raises(TypeError, match="template"):
        cache.cached(lambda n: n)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="template"):
        cache.writes(lambda n: n)  # type: ignore[arg-type]


def test_a_result_type_that_cannot_be_stored_is_refused_at_decoration() -> None:
    with pytest.raises(CodecError, match="socket"):

        @cache.cached("s:{n}")
        def bad(n: int) -> socket.socket:
            raise NotImplementedError

    with pytest.raises(ConfigError, match="returns="):

        @cache.cached("s:{n}")
        def worse(n: int) -> "NotDefinedAnywhere":  # type: ignore[name-defined]  # noqa: F821
            raise NotImplementedError


def test_wrong_ttls_are_refused_at_decoration() -> None:
    wrong: list[dict[str, Any]] = [{"ttl": 0}, {"ttl": None}, {"ttl": "1h", "none_ttl": -1}, {"hard_timeout": 0}]
    for options in wrong:
        with pytest.raises(ConfigError):
            cache.cached("x:{n}", **options)(lambda n: n)


def test_what_is_no_function_is_refused() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    for thing in (7, functools.partial(add, 1), object()):
        with pytest.raises(TypeError, match="only functions"):
            cache.cached("x:{b}")(cast(Any, thing))


def test_a_writer_caches_what_it_returns_and_invalidates_on_none() -> None:
    rows: dict[int, str] = {}

    @cache.writes("rows:{row_id}", ttl="1h")
    def save(row_id: int, text: str) -> str | None:
        rows[row_id] = text
        return text or None

    assert save(1, "a") == "a"
    assert cache.get("rows:1") == rows[1] == "a"
    assert save(1, "") is None
    assert not cache.exists("rows:1")
    assert save.__name__ == "save"


async def test_a_writer_may_be_a_coroutine_function() -> None:
    @acache.writes("arows:{row_id}")
    async def save(row_id: int, text: str) -> str:
        if not text:
            raise ValueError("empty")
        return text

    assert await save(1, "a") == "a"
    with pytest.raises(ValueError, match="empty"):
        await save(1, "")
    assert await acache.get("arows:1") == "a"


def test_the_twins_share_their_near_tier() -> None:
    assert cache.aio is acache
    assert acache.sync is cache
    assert isinstance(acache, AsyncCache)
    cache.set("twins:1", "x")
    assert asyncio.run(acache.get("twins:1")) == "x"


class Directory:
    """Functions of a class."""

    @cache.cached("by_class:{number}", ignore="cls")
    @classmethod
    def of_class(cls, number: int) -> str:
        """Read one."""
        return f"{cls.__name__}-{number}"

    @cache.writes("written:{number}")
    @classmethod
    def write_of_class(cls, number: int) -> str:
        """Write one."""
        return f"{cls.__name__}-{number}"

    @cache.writes("written:{number}")
    @staticmethod
    def write(number: int) -> str:
        """Write one."""
        return f"static-{number}"


class SubDirectory(Directory):
    """Another class."""


def test_verbs_of_a_class_method_know_their_class():
    kind, instance = cast(Any, SubDirectory), cast(Any, SubDirectory())
    assert kind.of_class(1) == instance.of_class(1) == "SubDirectory-1"
    assert kind.of_class.key(1) == "by_class:1"
    assert instance.of_class.many([1, 2]) == {1: "SubDirectory-1", 2: "SubDirectory-2"}
    assert kind.of_class.refresh(1) == "SubDirectory-1"
    assert kind.of_class.invalidate(1)


def test_class_and_static_methods_can_write():
    kind, instance = cast(Any, SubDirectory), cast(Any, SubDirectory())
    assert kind.write_of_class(1) == instance.write_of_class(1) == "SubDirectory-1"
    assert cache.get("written:1") == "SubDirectory-1"
    assert kind.write(2) == instance.write(2) == "static-2"
    assert cache.get("written:2") == "static-2"


def test_parameters_may_have_the_names_that_the_verbs_use():
    @cache.cached("named:{value}:{self}:{key}")
    def read(value: int, self: int, key: int) -> int:
        return value + self + key

    read.set(9, value=1, self=2, key=3)
    assert read(value=1, self=2, key=3) == read(1, 2, 3) == 9
    assert read.key(value=1, self=2, key=3) == "named:1:2:3"
    assert read.invalidate(value=1, self=2, key=3)
    assert read.refresh(value=1, self=2, key=3) == read.bypass(value=1, self=2, key=3) == 6


def test_an_interrupt_ends_a_batch_of_loads():
    loaded: list[int] = []

    @cache.cached("interrupted:{number}")
    def read(number: int) -> int:
        loaded.append(number)
        if number == 2:
            raise KeyboardInterrupt
        return number

    with pytest.raises(KeyboardInterrupt):
        read.many([1, 2, 3])
    assert loaded == [1, 2]
    assert read.peek(1) == 1


def test_members_of_an_enum_are_those_of_the_class_that_is_declared_now() -> None:
    def cell() -> tuple[Any, Any]:
        class Colour(enum.Enum):
            RED = 1

        @cache.cached("colours:{n}", returns=Colour)
        def colour(n: int) -> Any:
            return Colour.RED

        return colour, Colour

    old, _ = cell()
    for _ in range(3):
        old(1)
    new, now = cell()
    assert isinstance(new(1), now)


def test_a_type_of_functions_is_refused_by_name() -> None:
    with pytest.raises(CodecError, match="Callable"):

        @cache.cached("functions:{n}")
        def bad(n: int) -> Callable[[int], str]:
            raise NotImplementedError


def test_a_wrong_option_or_call_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^none_ttl is "):
        cache.cached("x:{n}", none_ttl=0)(lambda n: n)
    with pytest.raises(TypeError, match=r"user_name\(\): missing a required argument: 'user_id'"):
        user_name.invalidate()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="loader is of type int"):
        cache.get_or_load("x:1", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="store is of type str"):
        cache.write_through("x:1", 5, "x")  # type: ignore[arg-type]


def test_a_cache_is_not_pickled_or_copied() -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="module level"):
            cast(Any, attempt)(cache)


def test_bound_methods_of_one_instance_are_equal() -> None:
    one, two = Repository("one"), Repository("two")
    assert one.get == one.get
    assert hash(one.get) == hash(one.get)
    assert one.get != two.get
    assert one.get != "something else"


def test_many_never_mixes_up_items_that_are_equal() -> None:
    @cache.cached("mixed:{value}")
    def kind(value: Any) -> str:
        return type(value).__name__

    for items in ([1, True], [True, 1], [1, 1.0]):
        with pytest.raises(InvalidKeyError, match="equal and have different keys"):
            kind.many(items)
    assert kind.many([1, "1"]) == {1: "int", "1": "int"}
    assert [kind(True), kind(1.0), kind(1)] == ["bool", "float", "int"]


def test_a_function_that_does_not_tell_its_parameters_is_refused():
    for decorate in (Cache().cached("a:{x}"), Cache().cached_many("a:{x}", each="xs")):
        with pytest.raises(ConfigError, match=r"dict does not tell its parameters; decorate one of your own"):
            decorate(dict)
