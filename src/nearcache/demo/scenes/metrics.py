"""What the Prometheus page says in the end, of all processes of the demo together."""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from urllib.request import urlopen

from nearcache.demo import guide
from nearcache.demo.stage import Stage, duration

COUNTERS = {"cache_hits_total": "tier", "cache_misses_total": "reason", "cache_errors_total": "reason"}
"""What is added up, and by which label."""

Sums = dict[str, float]


def play(stage: Stage) -> None:
    """Fetch the page and add it up."""
    guide.cache.ttl("visits:after")  # a call to the engine, so that this process's near hits are on the page too
    with urlopen(serve()) as response:  # noqa: S310  # a page of this very process
        page = response.read().decode()
    for name, label in COUNTERS.items():
        for kind, number in sorted(_sums(page, name, label).items()):
            stage.report(f'{name}{{{label}="{kind}"}}', f"{number:,.0f}")
    calls = _sums(page, "cache_latency_seconds_count", "operation")
    for operation in [operation for operation in ("get", "set", "load") if operation in calls]:
        half = duration(_median(page, operation))
        stage.report(f'cache_latency_seconds{{operation="{operation}"}}', f"{calls[operation]:,.0f}, half ≤ {half}")
    misses = sum(_sums(page, "cache_misses_total", "reason").values())
    stale = _sums(page, "cache_hits_total", "tier").get("stale", 0.0)
    numbers = f"{misses:,.0f}, {stale:,.0f} and {calls['load']:,.0f}"
    stage.report("misses, stale hits and loads agree", numbers, misses + stale == calls["load"])


@cache
def serve() -> str:
    """Serve the page of all processes on a free port, once, and return its address."""
    # Here, not above: prometheus_client looks at PROMETHEUS_MULTIPROC_DIR when it is imported.
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    collect_into: Callable[[CollectorRegistry], object] = MultiProcessCollector  # it has no types of its own
    collect_into(registry)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    return f"http://127.0.0.1:{server.server_port}/metrics"


def _sums(page: str, name: str, label: str, **wanted: str) -> Sums:
    """Add up the samples of a metric by one label, those with the wanted labels only."""
    from prometheus_client.parser import text_string_to_metric_families

    sums: Sums = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == name and wanted.items() <= sample.labels.items():
                sums[sample.labels[label]] += sample.value
    return sums


def _median(page: str, operation: str) -> float:
    """Return the seconds in which half of the calls ended, as exactly as the buckets tell."""
    below = _sums(page, "cache_latency_seconds_bucket", "le", operation=operation)
    return min(float(bound) for bound, count in below.items() if count >= below["+Inf"] / 2)
