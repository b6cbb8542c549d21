"""The console on a store that is full: how long a page takes, and what ten browsers cost ingest.

Usage: `python -m benchmarks.console [EVENTS [WAITING [DEAD]]]`; without numbers 1,000,000 events, 100,000 deliveries
that wait and 10,000 dead letters. It needs Chromium for the times of a browser.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import yaml
from playwright.async_api import async_playwright

from bridge.config.loading import load
from bridge.console.site import ConsoleSite
from bridge.domain.clock import Clock
from bridge.domain.event import Position, WireEvent
from bridge.domain.times import rfc3339
from bridge.observability.metrics import Metrics
from bridge.protocols.deliveries import Attempt, NewDelivery
from bridge.protocols.ledger import Commit
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import build
from bridge.web.health_server import Health, HealthServer

PAGES = ("/", "/events", "/events?status=failed", "/sinks", "/sinks/crm", "/sinks/crm?code=503", "/sources")
COMMIT_EVENTS = 50
WATCHERS = 10
ROUND_SECONDS = 6.0
ROUNDS = 6


def events(first: int, count: int) -> list[WireEvent]:
    now = rfc3339(datetime.now(UTC))
    made = []
    for number in range(first, first + count):
        status = ("failed", "sent", "sending")[number % 3]
        body = {
            "specversion": "1.0", "id": f"{number:032x}", "source": "/govdelivery/city",
            "type": f"bridge.sms.recipient.{status}",
            "subject": f"/messages/sms/{number // 1000}/recipients/{number}", "time": now, "recordedtime": now,
            "data": {"channel": "sms", "status": status, "previous": "new", "transition": "advance",
                     "phone": "+16515551000",
                     "observed": {"after": now, "by": now}, "error": None},
        }  # fmt: skip
        made.append(WireEvent(f"{number:032x}", f"sms.recipient.{status}", 0, json.dumps(body).encode()))
    return made


async def seed(store, total: int, waiting: int, dead: int) -> None:
    store._begin = 0  # noqa: SLF001 - plain numbers
    for first in range(1, total + 1, 5000):
        await store.commit(None, Commit("city", events=events(first, min(5000, total - first + 1))))
    lease = await store.acquire("relay/city", "bench", 3600.0)
    await store.confirm(lease, "city", total)
    for first in range(1, waiting + dead + 1, 1000):
        places = [Position("city", number) for number in range(first, min(first + 1000, waiting + dead + 1))]
        await store.accept("crm", [NewDelivery(place) for place in places], time.time() - 10)
    for number in range(1, dead + 1):
        await store.dead_letter(
            "crm", Position("city", number), "exhausted", Attempt(time.time(), "https://crm answered 503")
        )


async def pages(origin: str) -> None:
    async with aiohttp.ClientSession() as session:
        for path in PAGES:
            times = []
            for _ in range(7):
                await asyncio.sleep(1.2)  # what was read a second ago is not read again
                started = time.perf_counter()
                async with session.get(origin + path) as response:
                    await response.read()
                    assert response.status == 200, path
                times.append((time.perf_counter() - started) * 1000)
            print(f"{path:<24} answered in {statistics.median(times):6.0f} ms, at most {max(times):6.0f} ms")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = await browser.new_page()
        for path in PAGES:
            await page.goto(origin + path, wait_until="load")
            await page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
            paint = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            print(f"{path:<24} first paint after {paint:.0f} ms")
        await browser.close()


async def cost(origin: str, store, total: int) -> None:
    """Commit pages as fast as the store takes them, with and without watchers in turn."""
    next_event, rates = total + 1, {False: [], True: []}
    for number in range(ROUNDS * 2):
        watched = bool(number % 2)
        watchers = [asyncio.ensure_future(watch(origin)) for _ in range(WATCHERS if watched else 0)]
        await asyncio.sleep(1.0)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < ROUND_SECONDS:
            await store.commit(None, Commit("city", events=events(next_event, COMMIT_EVENTS)))
            next_event += COMMIT_EVENTS
            count += COMMIT_EVENTS
        rates[watched].append(count / (time.perf_counter() - started))
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    alone, watched = statistics.median(rates[False]), statistics.median(rates[True])
    print(f"ingest alone {alone:,.0f}/s, with {WATCHERS} watchers {watched:,.0f}/s: {1 - watched / alone:+.1%} slower")


async def watch(origin: str) -> None:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session,
        session.get(f"{origin}/live/") as response,
    ):
        async for _ in response.content:
            pass


async def main() -> None:
    total, waiting, dead = [*map(int, sys.argv[1:4]), *(1_000_000, 100_000, 10_000)[len(sys.argv[1:4]) :]]
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder:
        source = {"type": "govdelivery", "url": "https://tms.example", "token": "bench", "channels": ["sms"]}
        sink = {"type": "webhook", "topics": ["#"], "url": "https://crm.example/hook"}
        values = {"state": folder, "http": {"console": "read"}, "sources": {"city": source}, "sinks": {"crm": sink}}
        file = Path(folder) / "bridge.yaml"
        file.write_text(yaml.safe_dump(values))
        assembly = Assembly(load(file), Clock())
        parts = build(assembly)
        await parts.open()
        await seed(parts.store, total, waiting, dead)
        site, ended = ConsoleSite(assembly, parts, assembly.config.http), asyncio.Event()

        async def refresh() -> None:
            pass

        server = HealthServer(Metrics(), Health(), refresh=refresh, heartbeat_age=lambda: 0.0, further=site)
        await server.start("127.0.0.1", 0)
        running = asyncio.ensure_future(site.run(ended))
        origin = f"http://127.0.0.1:{server.port}"
        print(f"{total:,} events, {waiting:,} waiting, {dead:,} dead letters")
        await pages(origin)
        await cost(origin, parts.store, total)
        ended.set()
        await running
        await server.stop()
        await parts.broker.close()
        await parts.store.close()


if __name__ == "__main__":
    asyncio.run(main())
