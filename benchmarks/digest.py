"""Slack: ten thousand failures of one message in a burst, and how many posts they become."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.rig import Rig, until
from benchmarks.webhooks import events, queue


@dataclass(frozen=True, slots=True)
class Digest:
    """What was measured."""

    events: int
    posts: int
    seconds: float
    """From start of the process to the last event settled, the windows of the digests included."""


async def burst(rig: Rig, count: int) -> Digest:
    """Have a burst told to a channel."""
    rig.reset()
    await queue(rig, events(count), "ops")
    config = rig.config(
        "digest",
        sources={"a": rig.source(["/messages/sms/1"])},
        sinks={"ops": {
            "type": "slack", "topics": ["#"], "webhook_url": f"{rig.far.url}/slack", "allow_private": True,
            "window": "5s", "concurrency": count,
        }},
    )  # fmt: skip
    before = rig.far.posts()
    async with rig.store() as store:

        async def done() -> bool:
            return sum(counts.delivered for counts in (await store.counts("ops")).values()) >= count

        started = time.perf_counter()
        with rig.bridge(config, "sink"):
            await until(done, "all events told", poll_seconds=0.05)
            seconds = time.perf_counter() - started
    return Digest(count, rig.far.posts() - before, seconds)


def measure(rig: Rig) -> Digest:
    """Tell of ten thousand events; a quick run of fewer."""
    return asyncio.run(burst(rig, rig.scale.of(10_000, 500)))
