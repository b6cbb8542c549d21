"""Memory: what a whole process (poll, relay and sink) has grown by when a million events have gone through it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.remote_server import STATUSES
from benchmarks.rig import Rig, resident, until

_MESSAGES = 40
_FIRST = 10_000


@dataclass(frozen=True, slots=True)
class Growth:
    """What was measured; bytes."""

    events: int
    early: int
    """After the first ten thousand events were settled."""
    late: int
    """After all were."""
    peak: int
    rate: float
    """Events a second through the whole process."""


async def grow(rig: Rig, events: int) -> Growth:
    """Send events through the process until `events` were settled."""
    rig.reset()
    per_message = events // len(STATUSES) // _MESSAGES
    total = per_message * _MESSAGES
    paths = rig.far.make(messages=_MESSAGES, recipients=per_message, phase=STATUSES[0])
    config = rig.config(
        "resident", sources={"a": rig.source(paths)}, sinks={"out": {"type": "stdout", "topics": ["#"]}},
        audit="2s",
    )  # fmt: skip
    async with rig.store() as store:

        async def settled(number: int) -> None:
            async def done() -> bool:
                return sum(counts.delivered for counts in (await store.counts("out")).values()) >= number

            await until(done, f"{number} events settled", within=600, poll_seconds=0.05)

        with rig.bridge(config) as process:
            await settled(_FIRST)
            early = resident(process.pid)["VmRSS"]
            started = time.perf_counter()
            for number, phase in enumerate(STATUSES, start=1):
                if number > 1:
                    rig.far.make(messages=_MESSAGES, recipients=per_message, phase=phase)
                await settled(number * total + _MESSAGES)
            rate = (len(STATUSES) * total - _FIRST) / (time.perf_counter() - started)
            resident_bytes = resident(process.pid)
            return Growth(len(STATUSES) * total, early, resident_bytes["VmRSS"], resident_bytes["VmHWM"], rate)


def measure(rig: Rig) -> Growth:
    """Send a million events through; a quick run fewer."""
    return asyncio.run(grow(rig, rig.scale.of(1_000_000, 40_000)))
