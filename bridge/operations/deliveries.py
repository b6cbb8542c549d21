"""What waits for another try, and dead letters: as plain values, counted, made due again and discarded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bridge.domain.event import Position
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.operations.delivery_filter import DeliveryFilter, Selected, code_of, select
from bridge.operations.disabled_sinks import Disabled, disabled
from bridge.protocols.deliveries import RELAY_SINK, Attempt

if TYPE_CHECKING:
    from bridge.protocols.store import Store
    from bridge.runtime.assembly import Assembly


def plain_delivery(selected: Selected, off: Mapping[str, Disabled]) -> dict[str, Any]:
    """Return a delivery for JSON; `off` are the sinks that are disabled."""
    delivery, event, answer = selected.delivery, selected.event, selected.delivery.answer
    return {
        "sink": delivery.sink,
        "disabled": off[delivery.sink].plain() if delivery.sink in off else None,
        "position": str(delivery.position),
        "id": event and event.event.id,
        "topic": event and event.event.topic,
        "subject": event and event.subject,
        "state": delivery.state,
        "reason": delivery.reason or None,
        "code": code_of(delivery),
        "due": None if delivery.state == "dead" else _time(delivery.due),
        "attempts": [_attempt(attempt) for attempt in delivery.attempts],
        "answer": None if answer is None else {"status": answer.status, "body": answer.body},
    }


def _attempt(attempt: Attempt) -> dict[str, str]:
    return {"at": _time(attempt.at), "kind": attempt.kind, "error": attempt.error}


def _time(seconds: float) -> str:
    return rfc3339(truncate_to_millis(datetime.fromtimestamp(seconds, UTC)))


async def known_sinks(configured: Collection[str], store: Store, sink: str | None = None) -> list[str]:
    """Return the sinks that are meant: all that may have deliveries, or the one; empty if nobody knows it."""
    if sink is None:
        return [*configured, *([RELAY_SINK] if await store.counts(RELAY_SINK) else [])]
    # A sink that is no longer configured may have left deliveries behind.
    is_known = sink == RELAY_SINK or sink in configured or bool(await store.counts(sink))
    return [sink] if is_known else []


async def count_deliveries(store: Store, sinks: Sequence[str], wanted: DeliveryFilter) -> dict[str, int]:
    """Return what waits and is dead in all, and how many of these match; by the books if the state alone is asked."""
    books = [count for name in sinks for count in (await store.counts(name)).values()]
    totals = {"waiting": sum(book.waiting for book in books), "dead": sum(book.dead for book in books)}
    if not wanted.is_narrow:
        return totals | {"matched": sum(totals[state] for state in wanted.states)}
    return totals | {"matched": sum([1 for name in sinks async for _ in select(store, name, wanted)])}


async def redrive_deliveries(
    parts: Assembly, store: Store, sink: str, positions: Sequence[Position]
) -> tuple[int, bool]:
    """Make deliveries due now, and enable the sink; return how many, and whether the sink had been disabled."""
    # Twice the time of a claim: the clocks of two machines differ.
    now, hold = parts.clock.epoch(), 2 * parts.config.claim
    count = await store.redrive(sink, positions, now, hold) if positions else 0
    was_disabled = sink in await disabled(store)
    # Deliveries first: a crash in between leaves a disabled sink, which the same command repairs.
    if sink != RELAY_SINK:
        await store.set_status(f"sink/{sink}", {"disabled": ""})
    return count, was_disabled


async def discard_deliveries(store: Store, sink: str, positions: Sequence[Position]) -> int:
    """End deliveries without sending them; return how many."""
    return await store.discard(sink, positions) if positions else 0
