"""Hit ratios on real requests, against those of the reference implementation (libCacheSim)."""

from collections.abc import Callable, Iterable
from functools import partial

import pytest

from nearcache._core.missing import MISS
from nearcache.near.store import ENTRY_OVERHEAD, Limit, Store
from tests.unit.near import traces

CASES = [
    pytest.param(traces.web12, 138, 41.04, id="web12-138"),
    pytest.param(traces.web12, 1376, 72.12, id="web12-1376"),
    pytest.param(partial(traces.lirs, "gli"), 253, 16.03, id="gli-253"),
    pytest.param(partial(traces.lirs, "multi3"), 745, 47.72, id="multi3-745"),
]


def hit_percentage(store: Store, keys: Iterable[str], size: int = 1) -> float:
    hits = requests = 0
    for requests, key in enumerate(keys, 1):  # noqa: B007  # the last number is the count
        if store.lookup(key) is MISS:
            store.keep(key, key, None, 1e9, size, store.stamp(key))
        else:
            hits += 1
    return 100 * hits / requests


@pytest.mark.parametrize(("trace", "capacity", "reference"), CASES)
def test_hit_ratio_is_that_of_s3_fifo(trace: Callable[[], Iterable[str]], capacity: int, reference: float):
    store = Store(Limit(entries=capacity), lambda: 0.0)
    assert hit_percentage(store, trace()) == pytest.approx(reference, abs=1.0)
    assert len(store) == capacity


def test_a_limit_in_bytes_does_as_well_as_the_same_number_of_entries():
    keys = list(traces.web12())
    footprint = ENTRY_OVERHEAD + len(keys[0]) + 100
    store = Store(Limit(bytes=1376 * footprint), lambda: 0.0)
    assert hit_percentage(store, keys, size=100) == pytest.approx(72.12, abs=1.0)
    assert 1375 * footprint <= store.size_bytes <= 1376 * footprint
