"""The check of the faces finds what it is for, and leaves twins alone."""

from textwrap import dedent

import pytest

from tools.facade import first_sentence, in_sync_words, problems

TWINS = '''
    class Cache:
        def get(self, key: str, *, loader: Callable[[], V]) -> V:
            """Return the value. A long text follows here."""
            return drive(self._read(key))

        def close(self) -> None:
            """Give up every connection."""
            drive(self._engine.close())

        @property
        def aio(self) -> AsyncCache:
            """The twin of the other flavour."""
            return self._twin

    class AsyncCache:
        async def get(self, key: str, *, loader: Callable[[], Awaitable[V]]) -> V:
            """Return the value."""
            return await self._read(key)

        async def aclose(self) -> None:
            """Give up every connection."""
            await self._engine.close()

        @property
        def sync(self) -> Cache:
            """The twin of the other flavour."""
            return self._twin
'''


def messages(source: str) -> list[str]:
    return [message for _, message in problems(dedent(source))]


def test_twins_have_no_problems() -> None:
    assert messages(TWINS) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("async def get(self, key: str,", "async def get(self, name: str,", "get differs"),
        ("async def get(self, key: str,", "async def get(self, key: str = '',", "get differs"),
        ("async def get(self, key: str,", "async def get(self, key: bytes,", "get differs"),
        ("async def get(self, key: str, *,", "async def get(self, key: str,", "get differs"),
        ("Awaitable[V]]) -> V", "Awaitable[V]]) -> V | None", "get differs"),
        ("async def aclose", "async def stop", "has no"),
        ("async def aclose", "def aclose", "so it is `async def`"),
        ("def close", "async def close", "close is async in the sync class"),
        ('"""Return the value."""', '"""Return a value."""', "begins differently"),
        ('"""Return the value."""', "", "has no docstring"),
        ('"""Return the value."""', '"""Return the value. ' + "And so on. " * 9 + '"""', "says more"),
        ("return self._twin", "a = 1; b = 2; c = 3; return self._twin", "aio has 4 statements"),
        (
            "return self._twin",
            "if self:\n                while self:\n                    a = b\n                return c",
            "4 st",
        ),
    ],
)
def test_a_difference_between_twins_is_found(old: str, new: str, expected: str) -> None:
    found = messages(TWINS.replace(old, new))
    assert any(expected in message for message in found), found


def test_a_private_helper_needs_no_counterpart_but_stays_short() -> None:
    helper = "        def _help(self) -> None:\n            {}\n\n    class AsyncCache:"
    assert messages(TWINS.replace("    class AsyncCache:", helper.format("a = 1"))) == []
    assert messages(TWINS.replace("    class AsyncCache:", helper.format("a = 1; a = 2; a = 3; a = 4"))) != []


def test_methods_of_a_shared_base_count_for_both() -> None:
    source = """
        class Base:
            def key(self) -> str:
                '''Return the key.'''
                a = 1; b = 2; c = 3; return a + b + c

        class Cache(Base): ...
        class AsyncCache(Base): ...
    """
    assert messages(source) == []


def test_a_class_without_a_twin_is_not_compared() -> None:
    assert messages("class Key:\n    def a(self): pass") == []


def test_overloads_are_compared_one_by_one() -> None:
    source = """
        class Cache:
            @overload
            def get(self, key: str) -> Any: ...
            @overload
            def get(self, key: str, *, type: type[V]) -> V: ...
            def get(self, key, *, type=None):
                '''Return the value.'''

        class AsyncCache:
            @overload
            async def get(self, key: str) -> Any: ...
            @overload
            async def get(self, key: str, *, type: type[V]) -> V: ...
            async def get(self, key, *, type=None):
                '''Return the value.'''
    """
    assert messages(source) == []
    assert (
        "get differs"
        in messages(source.replace("async def get(self, key: str) -> Any", "async def get(self) -> Any"))[0]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AsyncIterator[str]", "Iterator[str]"),
        ("Callable[P, Coroutine[Any, Any, list[R]]]", "Callable[P, list[R]]"),
        ("Awaitable[Awaitable[int]]", "int"),
        ("AsyncCached[P, R] | _AsyncThing", "Cached[P, R] | _Thing"),
        ("Asynchronous", "Asynchronous"),
    ],
)
def test_async_annotations_are_put_into_sync_words(text: str, expected: str) -> None:
    assert in_sync_words(text) == expected


def test_the_first_sentence_ends_at_its_dot_not_inside_a_number() -> None:
    assert first_sentence("Wait 0.5 s\nat most. Then give up.\n\nMore.") == "Wait 0.5 s at most."
