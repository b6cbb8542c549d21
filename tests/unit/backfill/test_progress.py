"""A backfill's progress moves with its pages, and it does not wait for a command that has ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from inprocess import polling
from rigs.backfill import AT, DAY, intake, page

from bridge.adapters.sqlite.store import SqliteStore
from bridge.coordination.leases import hold_lease, is_ended, new_owner
from bridge.domain.clock import Clock
from bridge.ingest.backfill import Backfill
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fakes import ScriptedSource

HOURS = 24


@pytest.fixture
async def timed(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """Give a store whose leases end by the real clock."""
    store = SqliteStore(tmp_path / "timed.db", clock=Clock())
    await store.open()
    yield store
    await store.close()


async def no_limit() -> str | None:
    return None


async def test_progress_moves_with_the_pages_of_one_step(store: SqliteStore) -> None:
    pages = [replace(page(seconds=number), progress=number / 5) for number in (1, 2, 1, 4, 9)]
    source, shares = ScriptedSource([[*pages]]), []
    work = Backfill(
        "city", intake(store, source), source, store, Clock(now=lambda: AT), room=no_limit,
        on_progress=lambda state: shares.append(state.covered / DAY.total_seconds()),
    )  # fmt: skip
    await work.run(AT - DAY, AT)
    assert shares == pytest.approx([0.0, 0.2, 0.4, 0.4, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("name", ["city", "drops", "journeys"])
async def test_every_source_says_how_far_it_is(tmp_path, name) -> None:
    now = datetime.now(UTC)
    async with Simulator(SimulatorSettings.still(keep_records=10**6)) as simulator:
        for hour in reversed(range(HOURS)):
            at = (now - timedelta(hours=hour + 0.5)).timestamp()
            fill(simulator, name, at)
        more = {"journeys": {"page_size": 3}, "drops": {"slice": "2h"}}.get(name, {})
        async with polling(name, simulator, tmp_path, Clock(), **more) as polled:
            pages = [part async for part in polled.source.backfill(now - timedelta(hours=HOURS), now)]
    shares = [part.progress for part in pages]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1
    assert len({round(share, 2) for share in shares if 0.05 < share < 0.95}) >= 4, shares


def fill(simulator: Simulator, name: str, at: float) -> None:
    """Make a resource of one provider, created at a time."""
    if name == "city":
        simulator.world.add_message("sms", ["+16515550100"], at=at)
    elif name == "drops":
        simulator.world.add_drop(at=at)
    else:
        simulator.world._place_send("sms", at, 24, Random("a seed"))


def ended_process() -> str:
    """Return the owner of a process that was killed."""
    script = "from bridge.coordination.leases import new_owner; print(new_owner(), flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        assert not is_ended(owner)
        process.send_signal(signal.SIGKILL)
    return owner


@pytest.mark.parametrize("owner", ["them", "", "other-host:1:abc", "{host}:x:abc", "{host}:{process}:a", "{host}:1:a"])
def test_only_a_process_known_to_have_ended_is_over(owner) -> None:
    assert not is_ended(owner.format(host=socket.gethostname(), process=os.getpid()))
    assert not is_ended(new_owner())


async def test_lease_of_a_killed_command_is_over(timed: SqliteStore) -> None:
    owner, clock, waits = ended_process(), Clock(), []
    assert is_ended(owner)
    assert await timed.acquire("beside/a", owner, 60.0)
    before = clock.monotonic()
    async with hold_lease(
        timed, clock, "beside/a", "us", 60, max_wait=30, cooldown_seconds=0.3, waiting=lambda: waits.append("waits")
    ):
        assert 0.2 < clock.monotonic() - before < 10
    assert waits == []


async def test_command_that_runs_on_is_still_waited_for(timed: SqliteStore) -> None:
    waits: list[str] = []
    assert await timed.acquire("beside/a", new_owner(), 0.8)
    async with hold_lease(
        timed, Clock(), "beside/a", "us", 60, max_wait=30, cooldown_seconds=0.1, waiting=lambda: waits.append("waits")
    ):
        assert waits == ["waits"]
