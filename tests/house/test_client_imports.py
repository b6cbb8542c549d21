"""`bridge.client` can be imported by any service: it brings pydantic and the events, and nothing of the bridge's own."""

from __future__ import annotations

import subprocess
import sys

from house.test_imports import IMPORTS, is_ours, room

LOADED = "import sys, bridge.client; print('\\n'.join(sorted(sys.modules)))"
LIBRARIES = {"aiohttp", "amqp", "click", "kombu", "prometheus_client", "redis", "rich", "sqlite3", "structlog", "yaml"}


def test_importing_the_client_loads_the_events_alone():
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout.split()
    packages = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("bridge.")}
    assert packages == {"bridge.client", "bridge.domain", "bridge.protocols"}
    assert LIBRARIES.isdisjoint(loaded)


def test_one_module_of_the_client_names_adapters():
    naming = {
        statement.module
        for statement in IMPORTS
        if room(statement.module) == "client" and is_ours(statement.target) and room(statement.target) == "adapters"
    }
    assert naming == {"bridge.client.places"}
