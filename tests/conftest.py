"""Fixtures for all tests, and a loud word at the end about tests that did not run for want of a server."""

from typing import Any

from tests.cluster import (
    _session_cluster,  # noqa: F401  # a fixture
)
from tests.faces import (
    embedded_directory,  # noqa: F401  # a fixture
    face,  # noqa: F401  # a fixture
)
from tests.hazelcast import (
    _session_hazelcast,  # noqa: F401  # a fixture
    _session_older,  # noqa: F401  # a fixture
)
from tests.sentinel import (
    _session_group,  # noqa: F401  # a fixture
)
from tests.servers import (
    _own_memcached,  # noqa: F401  # a fixture
    _own_server,  # noqa: F401  # a fixture
    _session_any,  # noqa: F401  # a fixture
    _session_memcached,  # noqa: F401  # a fixture
    _session_memcached_servers,  # noqa: F401  # a fixture
    _session_redis,  # noqa: F401  # a fixture
    _session_valkey,  # noqa: F401  # a fixture
    _session_versions,  # noqa: F401  # a fixture
)
from tests.tls import (
    _session_tls,  # noqa: F401  # a fixture
)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say once per reason what was not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {str(report.longrepr[2]) for report in skipped if "NOT RUN" in str(report.longrepr)}
    for reason in sorted(reasons):
        terminalreporter.write_line(reason, red=True, bold=True)
