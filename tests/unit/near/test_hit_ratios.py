"""Hit ratios on real requests, against those of the reference implementations (libCacheSim)."""

from collections.abc import Callable, Iterable
from functools import partial

import pytest

from nearcache._core.missing import MISS
from nearcache.near.policy import Learning
from nearcache.near.slot import Slot
from nearcache.near.store import ENTRY_OVERHEAD, Limit, Store
from nearcache.near.tally import Tally
from tests.unit.near import traces

web12, twitter52, oltp, cloud = traces.web12, traces.twitter52, traces.oltp, traces.cloud
loop, gli, multi3 = (partial(traces.lirs, name) for name in ("loop", "gli", "multi3"))

CASES = [
    pytest.param(web12, 138, 41.04, 41.67, id="web12-138"),
    pytest.param(web12, 1376, 72.12, 72.12, id="web12-1376"),
    pytest.param(gli, 253, 16.03, 16.03, id="gli-253"),
    pytest.param(multi3, 745, 47.72, 47.72, id="multi3-745"),
    pytest.param(cloud, 490, 16.96, 17.25, id="cloud-490"),
    pytest.param(cloud, 4897, 24.47, 24.47, id="cloud-4897"),
]
SLOW_CASES = [
    pytest.param(twitter52, 144, 51.28, 52.52, id="twitter52-144"),
    pytest.param(twitter52, 1435, 69.69, 70.38, id="twitter52-1435"),
    pytest.param(twitter52, 14354, 81.24, 81.24, id="twitter52-14354"),
    pytest.param(oltp, 187, 17.77, 19.02, id="oltp-187"),
    pytest.param(oltp, 1869, 46.47, 46.47, id="oltp-1869"),
    pytest.param(oltp, 18688, 67.66, 67.67, id="oltp-18688"),
    pytest.param(loop, 101, 8.98, 9.61, id="loop-101"),
]
SHORT_OF_THE_BEST = {"loop-101": 0.75, "twitter52-1435": 0.75}
"""Where more than half a point, or nearly as much, is missing to the best of LRU, 2Q, ARC, S3-FIFO and W-TinyLFU."""

SIZE_CASES = [pytest.param(0.01, 72.07, 63.77, id="1%"), pytest.param(0.1, 82.22, 77.78, id="10%")]


def hit_percentage(store: Store, keys: Iterable[str], size: int = 1) -> float:
    hits = requests = 0
    for requests, key in enumerate(keys, 1):  # noqa: B007  # the last number is the count
        if store.lookup(key) is MISS:
            store.keep(key, key, None, 1e9, size, store.stamp(key))
        else:
            hits += 1
    return 100 * hits / requests


def check(trace: Callable[[], Iterable[str]], capacity: int, s3_fifo: float, best: float, name: str) -> None:
    store = Store(Limit(entries=capacity), lambda: 0.0)
    reached = hit_percentage(store, trace())
    assert reached > s3_fifo - 0.5
    assert reached > best - SHORT_OF_THE_BEST.get(name, 0.5)
    assert store.entries == capacity


@pytest.mark.parametrize(("trace", "capacity", "s3_fifo", "best"), CASES)
def test_hit_ratio_is_about_that_of_the_best(trace, capacity, s3_fifo, best, request):
    check(trace, capacity, s3_fifo, best, request.node.callspec.id)


@pytest.mark.slow
@pytest.mark.parametrize(("trace", "capacity", "s3_fifo", "best"), SLOW_CASES)
def test_hit_ratio_is_about_that_of_the_best_on_long_traces(trace, capacity, s3_fifo, best, request):
    check(trace, capacity, s3_fifo, best, request.node.callspec.id)


def test_a_limit_in_bytes_does_as_well_as_the_same_number_of_entries():
    keys = list(web12())
    footprint = ENTRY_OVERHEAD + len(keys[0]) + 100
    store = Store(Limit(bytes=1376 * footprint), lambda: 0.0)
    assert hit_percentage(store, keys, size=100) > 72.12 - 0.5
    assert 1375 * footprint <= store.size_bytes <= 1376 * footprint


@pytest.mark.slow
@pytest.mark.parametrize(("share", "hits", "byte_hits"), SIZE_CASES)
def test_by_bytes_no_fewer_requests_hit_than_with_gdsf_and_more_bytes(share, hits, byte_hits):
    requests = list(traces.twitter52_sizes())
    sizes = dict(reversed(requests))
    capacity = round(sum(sizes.values()) * share)
    policy, there, weight = Learning(capacity, by_size=True), dict[str, Slot](), 0
    hit: list[int] = []
    for key, _ in requests:
        if key in there:
            there[key].freq += 1
            hit.append(sizes[key])
            continue
        while weight + sizes[key] > capacity and (victim := policy.victim(0.0)):
            weight -= there.pop(victim.key).size
        there[key] = slot = Slot(key, sizes[key], Tally())
        slot.deadline = 1.0
        policy.insert(slot)
        weight += slot.size
    assert 100 * len(hit) / len(requests) > hits
    assert 100 * sum(hit) / sum(sizes[key] for key, _ in requests) > byte_hits
