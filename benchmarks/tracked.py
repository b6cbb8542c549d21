"""What a tracked recipient costs Redis, and whether a page takes longer when ten million others are tracked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import redis

from benchmarks.remote_server import PAGE
from benchmarks.rig import Rig
from benchmarks.webhooks import events
from bridge.adapters.redis.store import RedisStore
from bridge.domain.event import WireEvent
from bridge.protocols.ledger import Commit, Key, StatusChange
from bridge.testing.servers import RedisServer

RETENTION = 30 * 86400.0
_PER_MESSAGE = 50_000
_FILLED_AT_ONCE = 5_000
_SWEEP = 50
_HISTORY = "nsd"
"""New, sending, sent: what the ledger keeps of a recipient at the end of its life."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """What was measured."""

    recipients: int
    bytes_each: float
    seconds_few: float
    """For a page of 50 that changes, with ten thousand tracked."""
    seconds_many: float
    filled_each: float
    """Microseconds to fill in one recipient."""


def keys(start: int, count: int) -> list[Key]:
    """Return recipients by their number; an account gives its numbers in order."""
    return [
        Key(f"/messages/sms/{number // _PER_MESSAGE}", str(700_000_000 + number))
        for number in range(start, start + count)
    ]


async def fill(store: RedisStore, recipients: int) -> None:
    """Make the ledger track so many."""

    async def one(numbers: Iterator[int]) -> None:
        for start in numbers:
            statuses = [StatusChange(key, None, _HISTORY) for key in keys(start, _FILLED_AT_ONCE)]
            await store.commit(None, Commit("a", statuses=statuses, retention=RETENTION))

    numbers = iter(range(0, recipients, _FILLED_AT_ONCE))
    await asyncio.gather(*(one(numbers) for _ in range(3)))


async def page(store: RedisStore, start: int, changed: list[WireEvent]) -> float:
    """Take a page of 50 recipients through the ledger, all of them changed; return seconds."""
    names = keys(start, PAGE)
    started = time.perf_counter()
    seen = await store.last_seen("a", names, RETENTION)
    changes = [StatusChange(key, before, f"{before}f") for key, before in zip(names, seen, strict=True)]
    await store.commit(None, Commit("a", statuses=changes, events=changed, retention=RETENTION))
    took = time.perf_counter() - started
    assert all(before == _HISTORY for before in seen), seen[:3]
    return took


def used(server: RedisServer) -> int:
    """Return the bytes that Redis has given out."""
    with redis.Redis(port=server.port) as client:
        return int(client.info("memory")["used_memory"])


async def compare(rig: Rig, few: RedisServer, many: RedisServer, recipients: int) -> Tracked:
    """Fill two servers, then take pages through both in turns."""
    changed = events(PAGE)
    async with rig.store(few) as small, rig.store(many) as large:
        await fill(small, 10_000)
        empty = used(many)
        started = time.perf_counter()
        await fill(large, recipients)
        took = time.perf_counter() - started
        bytes_each = (used(many) - empty) / recipients
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(10_000 // PAGE):
            # Sweeps of fifty pages each, as a poller makes them, through messages that lie far apart.
            sweep, place = divmod(turn, _SWEEP)
            spot = sweep * (recipients // (10_000 // PAGE // _SWEEP)) + place * PAGE
            times[0].append(await page(small, turn * PAGE, changed))
            times[1].append(await page(large, spot, changed))
        return Tracked(recipients, bytes_each, median(times[0]), median(times[1]), took / recipients * 1e6)


def measure(rig: Rig) -> Tracked:
    """Track ten million recipients; a quick run fewer."""
    recipients = rig.scale.of(10_000_000, 200_000)
    with RedisServer() as few, RedisServer() as many:
        return asyncio.run(compare(rig, few, many, recipients))
