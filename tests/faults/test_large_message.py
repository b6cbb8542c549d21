"""A message of 200,000 recipients, half of whom move while its pages are walked: nobody missed, nobody told twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from harness import Process, bridge, expected, until, write_config
from pydantic_core import from_json

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.histories import State
from bridge.simulator.world import Message

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

RECIPIENTS = 200_000
SMALL = 5_000
MOVING = 25.0
"""Seconds in which half of the recipients move; a walk through all pages takes as long."""
GROWTH = 24 * 2**20
"""Bytes by which a process may grow from its 5,000th recipient on; one that kept 200,000 would grow by more."""


def resident(process: Process) -> int:
    """Return the memory of a process that is in use, in bytes."""
    for line in Path(f"/proc/{process.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process has ended")


async def journal(folder: Path) -> list[tuple[str, str, str]]:
    """Return id, subject and status of all that was committed."""
    store = SqliteStore(folder / "state" / "bridge.db", clock=Clock())
    await store.open()
    try:
        committed: list[tuple[str, str, str]] = []
        after = (await store.journal("city")).base
        while entries := await store.read("city", after, 5_000):
            after = entries[-1].position.seq
            for entry in entries:
                event = from_json(entry.event.body)
                committed.append((event["id"], event["subject"], event["data"]["status"]))
        return committed
    finally:
        await store.close()


def scatter(message: Message, now: float) -> None:
    """Have every second recipient move at some time of the walk, wherever it stands in the list."""
    rng = random.Random(5)
    moving = rng.sample(range(RECIPIENTS), RECIPIENTS // 2)
    message.plan_all(
        [(now + rng.random() * MOVING, index, State("failed" if index % 5 == 0 else "sent")) for index in moving]
    )


async def test_200_000_recipients_changing_during_paging_are_published_once(tmp_path, capfd):
    async with Simulator(SimulatorSettings.still()) as simulator:
        config = write_config(tmp_path, simulator, interval="500ms")
        text = config.read_text().replace("200/s", "100000/s")
        config.write_text(text.replace("type: govdelivery", "type: govdelivery\n    reread_every: 1s"))
        small = simulator.world.add_message("sms", SMALL, status="sending", recipient_status="sending")
        with bridge(tmp_path, "run", "-c", str(config), "--role", "poll", "--role", "relay") as running:
            await until(lambda: all_seen(simulator, small), "the small message is read")
            before = peak = resident(running)
            large = simulator.world.add_message("sms", RECIPIENTS, status="sending", recipient_status="sending")
            scatter(large, simulator.world.now())
            walked = simulator.traffic["govdelivery"]
            while large.settle(simulator.world.now()).counts["sending"] != RECIPIENTS // 2 or not all_seen(
                simulator, large
            ):
                peak = max(peak, resident(running))
                await asyncio.sleep(0.25)
            assert await asyncio.to_thread(running.stop) == 0
        shown = expected(simulator)
        entries = await journal(tmp_path)
        counts = Counter((subject, status) for _, subject, status in entries)
        assert len({event_id for event_id, _, _ in entries}) == len(entries)
        assert counts == Counter((subject, status) for subject, seen in shown.items() for status, _, _ in seen)
        twice = sum(len(seen) > 1 for subject, seen in shown.items() if subject.startswith(f"{large.path}/"))
        passed = Counter(status for subject, status in counts if subject.startswith(f"{large.path}/"))
        with capfd.disabled():
            print(
                f"\n{RECIPIENTS:,} recipients, {passed.total():,} events ({dict(passed)}), {twice:,} of them seen before "
                f"and after they moved; {len(walked.times):,} requests; memory {before / 2**20:.0f} MiB, "
                f"at most {peak / 2**20:.0f} MiB"
            )
        # They really moved under the walker's feet: some before it came by, others behind its back.
        assert passed["sent"] + passed["failed"] == RECIPIENTS // 2
        assert RECIPIENTS // 200 < twice < RECIPIENTS // 2
        assert peak - before < GROWTH


def all_seen(simulator: Simulator, message: Message) -> bool:
    """Say whether every recipient was shown in its present status."""
    shown = simulator._ground_truths["govdelivery"]
    now = message.settle(simulator.world.now())
    return all(shown.last(path) == state.status for path, state in zip(now.recipients, now.states, strict=True))
