"""An HTTP sink by a preset, a vendor that listens, and a clock on which waiting takes no time."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.domain.event import Transition, WireEvent
from bridge.domain.events.govdelivery import RecipientData, RecipientFailed, RecipientSent
from bridge.forms import loading
from bridge.sinks.http import HttpSink, HttpSinkSettings
from bridge.sinks.http.settings import model_of
from bridge.testing.sink_suite import outgoing
from bridge.testing.vendor_endpoints import Vendor, VendorEndpoint


class MovedTime:
    """Monotonic seconds that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = Clock(monotonic=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.0)


def settings_of(preset: str, url: str, **values: Any) -> HttpSinkSettings:
    model = model_of(loading.load(loading.find(preset, loading.Path())))
    given = {"type": "http", "topics": ["#"], "preset": preset, "url": url, "allow_private": True, **values}
    return model.model_validate(given)


def event(number: int, *, error: str = "line busy", sent: bool = False, subject: str = "") -> WireEvent:
    at = datetime(2026, 3, 15, 21, 11, 2, tzinfo=UTC)
    cls = RecipientSent if sent else RecipientFailed
    data = RecipientData(
        channel="voice", status=cls.status, previous="sending", transition=Transition.ADVANCE, phone="+16515551000",
        message="/messages/voice/10507", error=error, detail="busy",
    )  # fmt: skip
    subject = subject or f"/messages/voice/10507/recipients/{number}"
    made = cls.of(id=f"{number:032x}", source="/govdelivery/city", subject=subject, time=at, recordedtime=at, data=data)
    return made.to_wire()


@asynccontextmanager
async def vendor_and_sink(vendor: Vendor, **values: Any) -> AsyncIterator[tuple[VendorEndpoint, HttpSink, MovedTime]]:
    time = MovedTime()
    endpoint = VendorEndpoint(vendor, time.clock)
    async with endpoint.server as server:
        sink = HttpSink(
            "ops", settings_of(vendor.preset, f"{server.url}/hooks/x", **vendor.settings, **values), time.clock
        )
        await sink.open()
        try:
            yield endpoint, sink, time
        finally:
            await sink.close()


async def deliver(sink: HttpSink, time: MovedTime, events: Iterable[WireEvent]) -> int:
    """Send all, each as soon as it is due; return how many attempts counted as failures."""
    due = [(0.0, number, event) for number, event in enumerate(events)]
    failures = 0
    while due:
        at, number, wire = heapq.heappop(due)
        time.now = max(time.now, at)
        try:
            await sink.send(outgoing(wire))
        except Transient as error:
            failures += error.counts_as_attempt
            heapq.heappush(due, (time.now + max(error.retry_after or 1.0, 1.0), number, wire))
    return failures
