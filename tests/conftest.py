"""Real servers for every test: one private Redis and one private RabbitMQ for each test process."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis
import structlog

from bridge.testing.servers import MissingServerError, RabbitMQServer, RedisServer

ROOT = Path(__file__).parents[1]

# A gate gives the same answer for the same tree; new examples are sought by hand, with HYPOTHESIS_PROFILE=long.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=10_000, stateful_step_count=30)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So began whoever started the tests in the background, and every command that they start would ignore Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = (
    *("test_outages", "test_crash_matrix", "test_fault_table", "test_replicas", "test_resource_soak", "test_main_job"),
    *("test_budget", "test_broker_faults", "test_tape", "test_canaries", "test_relay_dead_letters"),
    *("test_rabbitmq_cluster", "test_receivers", "test_process", "test_receiver_examples", "test_large_message"),
    *(
        "test_smallest_rights",
        "test_status",
        "test_books",
        "test_clock_jumps",
        "test_accounts",
        "test_soak",
        "test_alerts",
    ),
)
LEVELS = ("faults", "acceptance", "contract", "house", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that several workers end at about the same time."""

    def place(item: pytest.Item) -> tuple[bool, int, str]:
        path = item.path
        heavy = path.stem in LONGEST and path.parent.name != "unit"
        level = LEVELS.index(path.parent.name) if path.parent.name in LEVELS else -1
        return not heavy, LONGEST.index(path.stem) if heavy else level, str(path)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Take back how a command that ran in this process set up its log: its stream is closed when its test is over."""
    before = logging.getLogger().handlers[:]
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = before


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Give the session's shared redis-server; tests that harm a server start one of their own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Give an empty Redis database."""
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Give the folder of what the tests run in Node, installed by the lock of tests/node; one process at a time."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise MissingServerError("node and npm are not installed (Debian packages: nodejs, npm)")
    folder = ROOT / ".venv" / "node"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--silent", ".venv/node/.installed"], cwd=ROOT, check=True, timeout=240)
    return folder / "node_modules"


@pytest.fixture(scope="session")
def kubernetes_tools() -> Path:
    """Give the folder of kubectl and Helm's library, installed by the lock of tests/tools; one process at a time."""
    folder = ROOT / ".venv" / "tools"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--silent", ".venv/tools/.installed"], cwd=ROOT, check=True, timeout=240)
    return folder


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQServer]:
    """Give the session's shared RabbitMQ node; tests that harm a node start one of their own."""
    with RabbitMQServer() as server:
        yield server


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    """Give the URL of the node with nothing of a former test on it."""
    yield rabbitmq_server.url
    rabbitmq_server.wipe()
