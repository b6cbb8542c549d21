"""A console on a store that holds events and deliveries of every kind, served in the test's own process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bridge.config.loading import load
from bridge.console.site import ConsoleSite
from bridge.domain.clock import Clock
from bridge.domain.event import Position, WireEvent
from bridge.domain.times import rfc3339
from bridge.observability.metrics import Metrics
from bridge.protocols.deliveries import Attempt, KeptAnswer, NewDelivery
from bridge.protocols.ledger import Commit
from bridge.protocols.roster import Member, OpenCircuit
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import ServiceParts, build
from bridge.web.health_server import Health, HealthServer

TOKEN = "canary-console-token"
PHONE, KEY, EMAIL, PROVIDER_TOKEN = "+17165550143", "canary-contact-key", "canary@example.org", "canary-provider-token"
SIGNING = "whsec_Y2FuYXJ5LXNpZ25pbmctc2VjcmV0LW9mLWEtc2luaw=="
CANARIES = (PHONE, PHONE[1:], KEY, EMAIL, PROVIDER_TOKEN, TOKEN, SIGNING, "Y2FuYXJ5")
"""What must be on no page: phones, keys and secrets."""
NOW = datetime.now(UTC)


def configuration(folder: Path, **http: Any) -> Path:
    """Write a configuration with a source and two sinks; `http` are settings of the console."""
    hook = {"type": "webhook", "url": "https://crm.example/hook", "secret": SIGNING}
    values = {
        "state": str(folder / "state"),
        "http": {"listen": "127.0.0.1:0", "console": "read", **http},
        "sources": {
            "city": {"type": "govdelivery", "url": "https://tms.example", "token": PROVIDER_TOKEN, "channels": ["sms"]}
        },
        "sinks": {
            "crm": {**hook, "topics": ["#"]},
            "ops": {**hook, "topics": ["*.recipient.failed.#"], "where": {"not": {"exact": {"data.phone": PHONE}}}},
        },
    }
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def event(number: int) -> WireEvent:
    """Return the event of a number: of recipient 1, 2 or 3, with personal data in all places that may have it."""
    recorded = NOW - timedelta(minutes=30) + timedelta(seconds=number)
    status, previous = ("failed", "sending") if number % 2 else ("sending", "new")
    subject = f"/messages/sms/1/recipients/{number % 3 + 1}" if number % 5 else f"/messages/sms/1/recipients/{KEY}"
    body = {
        "specversion": "1.0", "id": f"{number:032x}", "source": "/govdelivery/city", "type": f"bridge.sms.recipient.{status}",
        "subject": subject, "time": rfc3339(recorded - timedelta(seconds=2)), "recordedtime": rfc3339(recorded),
        "partitionkey": subject,
        "data": {
            "channel": "sms", "status": status, "previous": previous, "detail": None, "transition": "advance",
            "observed": {"after": rfc3339(recorded - timedelta(seconds=9)), "by": rfc3339(recorded)},
            "message": "/messages/sms/1", "phone": PHONE, "contact_key": KEY, "error": f"number {PHONE} of {EMAIL} is <unknown>",
        },
    }  # fmt: skip
    return WireEvent(f"{number:032x}", f"sms.recipient.{status}", int(recorded.timestamp()), json.dumps(body).encode())


async def seed(parts: ServiceParts) -> None:
    """Give the store seven events, all but the last confirmed, and deliveries in every state."""
    store = parts.store
    store._begin = 0  # plain numbers
    lease = await store.acquire("source/city", "box:7:1", 600.0)
    await store.commit(lease, Commit("city", events=[event(number) for number in range(1, 8)]))
    await store.confirm(await store.acquire("relay/city", "box:7:1", 600.0), "city", 6, 1)
    times = {"last_poll": NOW, "last_ok": NOW, "next_poll": NOW + timedelta(minutes=5), "state_since": NOW}
    notes = {name: rfc3339(value) for name, value in times.items()}
    await store.set_status("source/city", {**notes, "state": "failing", "failures": "3", "error": f"HTTP 503 {PHONE}"})
    at = [Position("city", number) for number in range(8)]
    await store.accept("crm", [NewDelivery(place) for place in at[1:6]], time.time() - 10)
    await store.settle("crm", at[1:2])
    answer = KeptAnswer(422, json.dumps({"error": f"no such phone {PHONE}", "key": KEY}))
    refused = Attempt(NOW.timestamp(), f"https://crm.example answered 422 (phone {PHONE})", "permanent")
    await store.dead_letter("crm", at[2], "permanent", refused, answer)
    await store.dead_letter("crm", at[3], "exhausted", Attempt(NOW.timestamp(), "https://crm.example answered 503"))
    await store.postpone("crm", at[4], time.time() + 600, Attempt(NOW.timestamp(), "https://crm.example answered 503"))
    await store.filter_out("ops", at[1:2])
    await store.set_status("sink/ops", {"disabled": "it answered 410", "disabled_at": rfc3339(NOW)})
    circuits = {"crm": OpenCircuit(NOW.timestamp(), f"answered 503 for {PHONE}")}
    member = Member("box:7:1", "box", 7, ("poll", "relay", "sink"), "1", "0badcafe", NOW.timestamp(), {}, circuits)
    await store.announce(member, 600.0)


class Browser:
    """Asks a console as a browser does."""

    def __init__(self, console: ConsoleSite, parts: ServiceParts, port: int, session: aiohttp.ClientSession) -> None:
        self.console = console
        self.parts = parts
        self.origin = f"http://127.0.0.1:{port}"
        self.session = session

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.get(self.origin + path, headers=headers, allow_redirects=False) as response:
            self.headers = response.headers
            return response.status, await response.text()

    async def json(self, path: str) -> Any:
        status, text = await self.get(path)
        assert status == 200, text
        return json.loads(text)

    async def post(self, path: str, form: Mapping[str, str], **headers: str) -> tuple[int, str]:
        headers = {"Origin": self.origin, **headers}
        async with self.session.post(self.origin + path, data=form, headers=headers, allow_redirects=False) as response:
            self.headers = response.headers
            return response.status, await response.text()


@asynccontextmanager
async def console(folder: Path, *, full: bool = True, **http: Any) -> AsyncIterator[Browser]:
    """Serve a console; `full` has a store with events and deliveries, otherwise it has nothing."""
    clock = Clock()
    assembly = Assembly(load(configuration(folder, **http)), clock)
    parts = build(assembly)
    await parts.open()
    if full:
        await seed(parts)
    site = ConsoleSite(assembly, parts, assembly.config.http)

    async def refresh() -> None:
        pass

    server = HealthServer(Metrics(), Health(), refresh=refresh, heartbeat_age=lambda: 0.0, further=site)
    await server.start("127.0.0.1", 0)
    ended = asyncio.Event()
    running = asyncio.ensure_future(site.run(ended))
    jar = aiohttp.CookieJar(unsafe=True)
    try:
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            yield Browser(site, parts, server.port, session)
    finally:
        ended.set()
        await running
        await server.stop()
        for sink in parts.sinks.values():
            await sink.sink.close()
        for source in parts.sources.values():
            await source.source.close()
        await parts.broker.close()
        await parts.store.close()
