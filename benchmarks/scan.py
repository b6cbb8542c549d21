"""The scan of what has not changed: most of what a poller reads is no news, and should cost little beyond reading."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import aiohttp

from benchmarks.remote_server import PAGE
from benchmarks.rig import Rig, Sides
from bridge.domain.clock import Clock
from bridge.domain.settings import Secret
from bridge.ingest.intake import Intake
from bridge.sources.govdelivery import GovDelivery, GovDeliverySettings

_MESSAGES = 8
_AT_ONCE = 4


async def bare(url: str, paths: Sequence[str], pages: int) -> float:
    """Fetch and parse all pages, as many at once as the source does; return recipients a second."""
    waiting = list(paths)
    item_count = 0

    async def walk(session: aiohttp.ClientSession) -> None:
        nonlocal item_count
        while waiting:
            path = waiting.pop()
            for page in range(1, pages + 1):
                where = f"{path}/recipients/page/{page}" if page > 1 else f"{path}/recipients"
                async with session.get(url + where, headers={"X-AUTH-TOKEN": "t"}) as response:
                    item_count += len(json.loads(await response.read()))

    async with aiohttp.ClientSession() as session:
        started = time.perf_counter()
        await asyncio.gather(*(walk(session) for _ in range(_AT_ONCE)))
        return item_count / (time.perf_counter() - started)


async def compare(rig: Rig, recipients: int, sides: Sides) -> None:
    """Let both read the same pages in turns, after the ledger has learnt them."""
    per_message = recipients // _MESSAGES // PAGE * PAGE
    paths = rig.far.make(messages=_MESSAGES, recipients=per_message, phase="sending", restless=True)
    settings = GovDeliverySettings(
        type="govdelivery", url=rig.far.url, token=Secret("t"), channels=["sms"], discover=False, messages=list(paths),
        interval=0.001, rate=1e6, concurrency=_AT_ONCE,
    )  # fmt: skip
    source = GovDelivery("a", settings, Clock())
    async with rig.store() as store:
        lease = await store.acquire("source/a", "bench", 600)
        assert lease is not None
        intake = Intake("a", "govdelivery", source, store, Clock())
        first = await intake.poll(lease)
        assert first.events >= per_message * _MESSAGES, first
        for turn in range(rig.scale.of(3, 2)):
            await asyncio.sleep(0.01)  # every message is due again
            started = time.perf_counter()
            done = await intake.poll(lease)
            sides.add("ours", per_message * _MESSAGES / (time.perf_counter() - started))
            assert (done.events, done.observed) == (0, (per_message + 1) * _MESSAGES), done
            sides.add("bare", await bare(rig.far.url, paths, per_message // PAGE))
            # And with one recipient on each page that moved: every page has to be taken apart, and asked for.
            rig.far.make(messages=_MESSAGES, recipients=per_message, phase="sending", restless=True, stirred=turn + 1)
            await asyncio.sleep(0.01)
            started = time.perf_counter()
            done = await intake.poll(lease)
            sides.add("ours, stirred", per_message * _MESSAGES / (time.perf_counter() - started))
            assert done.events == per_message * _MESSAGES // PAGE, done
            assert (await intake.poll(lease)).events == 0
    await source.close()


def measure(rig: Rig) -> Sides:
    """Let both take turns."""
    sides = Sides()
    rig.reset()
    asyncio.run(compare(rig, rig.scale.of(100_000, 10_000), sides))
    return sides
