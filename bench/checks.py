"""Against cheating ourselves: what must hold of the code that is timed; else `make bench` fails."""

from collections.abc import Callable

from bench.contenders.near import hits
from bench.work import cases, deep, flat, row, square, tree
from nearcache import Cache
from nearcache.testing import FakeClock

CALLS = 5_000


def true_is_not_one() -> None:
    """`True` and `1` have entries of their own, after thousands of hits too."""
    cache = Cache("memory://", namespace="bench-keys")
    seen: list[object] = []

    @cache.cached("kinds:{n}")
    def kind(n: int) -> str:
        seen.append(n)
        return type(n).__name__

    for _ in range(CALLS):
        assert kind(1) == "int"
        assert kind(True) == "bool"
    assert kind(1) == "int"
    assert [type(n) for n in seen] == [int, bool], seen


def results_cannot_be_changed_through() -> None:
    """A caller who changes a dict changes his own."""
    cache = Cache("memory://", namespace="bench-copies")
    for function, template, expected in ((row, "rows:{row_id}", flat(7)), (tree, "trees:{row_id}", deep(7))):
        cached = cache.cached(template)(function)
        for _ in range(3):
            answer = cached(7)
            assert answer == expected
            for value in answer.values():
                if isinstance(value, dict | list):
                    value.clear()
            answer.clear()


def values_expire() -> None:
    """When the clock passes the TTL, the function runs again, and `get` finds nothing."""
    clock = FakeClock()
    cache = Cache("memory://", namespace="bench-clock", clock=clock)
    loads: list[int] = []

    @cache.cached("numbers:{n}", ttl="1h")
    def number(n: int) -> int:
        loads.append(n)
        return n

    cache.set("names:7", "Ada", ttl="1h")
    for _ in range(CALLS):
        number(7)
        assert cache.get("names:7") == "Ada"
    assert loads == [7]
    clock.advance("2h")
    assert cache.get("names:7") is None
    assert number(7) == 7
    assert loads == [7, 7]


def every_hit_is_counted() -> None:
    """Statistics and Prometheus count each hit; nothing was turned off for the bench."""
    cache = Cache("memory://", namespace="bench-hits")
    case = cases()["int"]
    cached = cache.cached(case.template)(square)
    cache.set("names:7", "Ada")
    cached(case.argument)
    before = hits(cache)
    for _ in range(CALLS):
        cached(case.argument)
        cache.get("names:7")
    after = hits(cache)
    assert {name: after[name] - before[name] for name in after} == dict.fromkeys(after, 2 * CALLS)


CHECKS: tuple[Callable[[], None], ...] = (
    true_is_not_one,
    results_cannot_be_changed_through,
    values_expire,
    every_hit_is_counted,
)


def run() -> list[str]:
    """Run all checks; return what they have shown. Raises `AssertionError`."""
    for check in CHECKS:
        check()
    return [(check.__doc__ or "").strip() for check in CHECKS]
