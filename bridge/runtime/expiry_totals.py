"""Tells how many events of a sink have expired: in one event of the bridge's own, at most once a minute."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

import structlog

from bridge.coordination.leases import wait_for_stop
from bridge.domain.catalogue import DeliveryExpired, ExpiryData, internal_event
from bridge.domain.errors import Unavailable
from bridge.domain.settings import format_duration
from bridge.domain.times import truncate_to_millis
from bridge.protocols.ledger import Commit
from bridge.runtime.overview import counted
from bridge.runtime.process import Process

log = structlog.get_logger()

_RUN_EVERY_SECONDS = 5.0
_MIN_INTERVAL_SECONDS = 60.0
"""Seconds between two events about one sink, of all processes together."""


def publish_totals_often(process: Process, sink: str, journal: str) -> Callable[[], Awaitable[None]]:
    """Return the part of a process that tells what has expired at a sink, until the process stops."""

    async def run() -> None:
        while not await wait_for_stop(process.stop, process.clock, _RUN_EVERY_SECONDS):
            try:
                await _publish_in_turn(process, sink, journal)
            except Unavailable as error:
                log.debug("totals.waits", sink=sink, reason=str(error))

    return run


async def _publish_in_turn(process: Process, sink: str, journal: str) -> None:
    """Tell what has expired, unless a process has done so within a minute: it still has the lease."""
    store, lease = process.parts.store, f"totals/{sink}"
    if not any(count.expired for count in (await store.counts(sink)).values()):
        return
    if await store.holder(lease) is None and await store.acquire(lease, process.owner, _MIN_INTERVAL_SECONDS):
        await publish_totals(process, sink, journal)


async def publish_totals(process: Process, sink: str, journal: str) -> None:
    """Tell what has expired at a sink and was not told yet; raises `Unavailable`.

    After a crash before the end, the next call publishes the same event, with the same id.
    """
    store, settings = process.parts.store, process.parts.sinks[sink].settings
    totals = await store.open_totals(sink, uuid4().hex)
    if totals is None:
        return
    event = internal_event(
        DeliveryExpired,
        ExpiryData,
        source="/bridge/sinks",
        subject=f"/sinks/{sink}",
        occurrence=totals.id,
        now=truncate_to_millis(process.clock.now()),
        sink=sink,
        count=totals.count,
        oldest=_moment(totals.oldest),
        newest=_moment(totals.newest),
        topics=dict(totals.topics),
        reason=_reason(totals.count, settings.max_age),
    )
    await store.commit(None, Commit(journal, events=[event.to_wire()]))
    process.committed[journal].set()
    await store.close_totals(sink, totals.id)


def _reason(number: int, max_age: float | None) -> str:
    """Return what a person reads who gets the event in a message."""
    than = "max_age" if max_age is None else f"{format_duration(max_age)} (max_age)"
    return f"{counted(number, 'event')} older than {than}"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else truncate_to_millis(datetime.fromtimestamp(seconds, UTC))
