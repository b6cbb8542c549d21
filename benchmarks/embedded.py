"""Without any server: the embedded store and broker, beside the least that keeps as much on disk twice."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ingest import BATCH, bodies
from benchmarks.remote_server import STATUSES
from benchmarks.rig import Rig, Sides, until
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock

_MESSAGES = 4


def bare(folder: Path, events: Sequence[bytes]) -> float:
    """Write ready bytes into a journal and a queue, a transaction for each batch and file; return events a second."""
    files = [sqlite3.connect(folder / f"bare-{name}-{time.monotonic_ns()}.db") for name in ("journal", "queue")]
    for file in files:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        file.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, body BLOB)")
    started = time.perf_counter()
    for start in range(0, len(events), BATCH):
        for file in files:
            file.executemany(
                "INSERT INTO events (body) VALUES (?)", [(event,) for event in events[start : start + BATCH]]
            )
            file.commit()
    seconds = time.perf_counter() - started
    for file in files:
        file.close()
    return len(events) / seconds


async def ours(rig: Rig, recipients: int, sides: Sides) -> None:
    """Run the bridge with nothing but its state directory."""
    per_message = recipients // _MESSAGES
    paths = rig.far.make(messages=_MESSAGES, recipients=per_message, phase=STATUSES[0])
    name = f"embedded-{time.monotonic_ns()}"
    config = rig.config(
        name,
        store=...,
        broker=...,
        sources={"a": rig.source(paths)},
        sinks={"out": {"type": "stdout", "topics": ["#"]}},
    )
    (rig.folder / f"{name}-state").mkdir()
    store = SqliteStore(rig.folder / f"{name}-state" / "bridge.db", clock=Clock())
    await store.open()

    async def settled(number: int) -> None:
        async def done() -> bool:
            return sum(counts.delivered for counts in (await store.counts("out")).values()) >= number

        await until(done, f"{number} events settled", poll_seconds=0.02)

    try:
        with rig.bridge(config):
            await settled(recipients + _MESSAGES)
            for number, phase in enumerate(STATUSES[1:], start=2):
                rig.far.make(messages=_MESSAGES, recipients=per_message, phase=phase)
                started = time.perf_counter()
                await settled(number * recipients + _MESSAGES)
                sides.add("ours", recipients / (time.perf_counter() - started))
                sides.add("bare", bare(rig.folder, bodies(recipients)))
    finally:
        await store.close()


def measure(rig: Rig) -> Sides:
    """Let both take turns."""
    sides = Sides()
    asyncio.run(ours(rig, rig.scale.of(8_000, 1_200), sides))
    return sides
