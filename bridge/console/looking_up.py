"""Single events, resources and deliveries: found by the operations that the commands use, and masked."""

from __future__ import annotations

import asyncio
from typing import Any

from bridge.console.facts import ConsoleFacts
from bridge.console.feed import newest_events
from bridge.console.masks import Masks
from bridge.console.queries import BadQuery, DeliveriesQuery, EventsQuery, Missing, position
from bridge.domain.event_view import EventView
from bridge.operations.deliveries import known_sinks, plain_delivery
from bridge.operations.delivery_filter import DeliveryFilter, Selected, select
from bridge.operations.disabled_sinks import disabled
from bridge.operations.known_statuses import recorded
from bridge.operations.message_books import message_books, message_of
from bridge.operations.trace import resource_views, timeline
from bridge.protocols.store import Store

PAGE_DELIVERIES = 50
_MAX_READ_DELIVERIES = 5_000
"""Deliveries that are read for one page; a filter that finds too few goes on from there on the next page."""
_BOOKS_KEPT_SECONDS = 5.0
_MAX_CHANGES = 200
"""Changes of one resource that are shown."""


class Lookup:
    """Finds what one page is about."""

    def __init__(self, facts: ConsoleFacts) -> None:
        self._facts = facts
        self._searching = asyncio.Lock()
        """Reading whole journals is for one at a time."""

    # events

    async def events(self, wanted: EventsQuery) -> dict[str, Any]:
        """Return a page of the newest events."""
        store, masks = await self._facts.store(), await self._facts.masks()
        page = await newest_events(store, await self._facts.journals(), wanted.filter, masks, wanted.before)
        marks = ",".join(f"{name}:{seq}" for name, seq in page.before.items())
        return {
            "events": [_event_row(masks.view(view)) for view in page.views],
            "read": page.read,
            "next": marks or None,
        }

    async def event(self, text: str) -> dict[str, Any]:
        """Return one event in full, with what each sink did with it; raises `Missing`."""
        store, masks = await self._facts.store(), await self._facts.masks()
        entry = (await store.entries([position(text)]))[0]
        if entry is None:
            raise Missing(f"the journal has no event {text} (any more)")
        view = EventView.of(entry)
        change = await self._change(store, masks, view)
        return change | {"body": masks.view(view).body}

    async def _change(self, store: Store, masks: Masks, view: EventView) -> dict[str, Any]:
        change = await timeline(self._facts.assembly, store, view, masks.view(view))
        for sink in change["sinks"]:
            sink["said"] = masks.text(sink["said"], view)
            sink["attempts"] = masks.attempts(sink["attempts"], view)
            sink["answer"] = masks.answer(sink["answer"], view)
        if change["set_aside"] is not None:
            change["set_aside"]["said"] = masks.text(change["set_aside"]["said"], view)
            change["set_aside"]["attempts"] = masks.attempts(change["set_aside"]["attempts"], view)
        return change

    async def life(self, of: str, name: str) -> dict[str, Any]:
        """Return a resource's changes: that of an event at a position, or the one that an operator named."""
        store, masks = await self._facts.store(), await self._facts.masks()
        if of:
            entry = (await store.entries([position(of)]))[0]
            if entry is None:
                raise Missing(f"the journal has no event {of} (any more)")
            name = EventView.of(entry).subject
        async with self._searching:
            views = await resource_views(self._facts.assembly, store, name)
        changes = [await self._change(store, masks, view) for view in views[-_MAX_CHANGES:]]
        known = [] if views else await recorded(self._facts.assembly, store, name)
        return {
            "subject": changes[-1]["subject"] if changes else None,
            "changes": changes,
            "left_out": max(0, len(views) - _MAX_CHANGES),
            "known": [{"status": status.status, "source": status.source, "said": str(status)} for status in known],
        }

    async def books(self, of: str) -> dict[str, Any]:
        """Return the books of the message of the event at a position; raises `Missing`."""
        store, masks = await self._facts.store(), await self._facts.masks()
        entry = (await store.entries([position(of)]))[0]
        if entry is None:
            raise Missing(f"the journal has no event {of} (any more)")
        view = EventView.of(entry)

        async def read() -> dict[str, Any]:
            async with self._searching:
                return (await message_books(self._facts.assembly, store, view)).plain()

        books = await self._facts.shared(f"books/{message_of(view)}", read, _BOOKS_KEPT_SECONDS)
        return books | {"message": message_of(masks.view(view))}

    # deliveries

    async def deliveries(self, sink: str, wanted: DeliveriesQuery) -> dict[str, Any]:
        """Return a page of what waits for a sink and is dead; raises `Missing`."""
        store, masks = await self._facts.store(), await self._facts.masks()
        if not await known_sinks(self._facts.assembly.config.sinks, store, sink):
            raise Missing(f"there is no sink {sink!r}, neither in the configuration nor in the store")
        if wanted.after is not None and wanted.after.sink != sink:
            raise BadQuery("after: the mark is of another sink")
        off, rows, read = await disabled(store), list[dict[str, Any]](), 0
        following = None
        counts = (await store.counts(sink)).values()
        whole = DeliveryFilter(states=wanted.filter.states)
        async for selected in select(store, sink, whole, wanted.after.place if wanted.after else None):
            read += 1
            if len(rows) == PAGE_DELIVERIES or read > _MAX_READ_DELIVERIES:
                break
            if wanted.filter.selects(selected) and has_text(row := shown_delivery(selected, masks, off), wanted.text):
                rows.append(row)
            following = f"{sink}/{selected.delivery.place[0]!r}/{selected.delivery.position}"
        else:
            following = None
        return {
            "deliveries": rows,
            "totals": {"waiting": sum(count.waiting for count in counts), "dead": sum(count.dead for count in counts)},
            "next": following,
        }


def _event_row(view: EventView) -> dict[str, Any]:
    data = view.data
    return {
        "position": str(view.position),
        "id": view.event.id,
        "source": view.position.source,
        "topic": view.event.topic,
        "subject": view.subject,
        "time": view.body.get("time"),
        "recorded": view.body.get("recordedtime"),
        "status": view.status,
        "previous": data.get("previous"),
        "transition": data.get("transition"),
        "phone": data.get("phone"),
        "said": data.get("error") or data.get("reason"),
    }


def shown_delivery(selected: Selected, masks: Masks, off: Any) -> dict[str, Any]:
    """Return a delivery as it may be shown."""
    event = selected.event
    masked = None if event is None else masks.view(event)
    row = plain_delivery(Selected(selected.delivery, masked), off)
    row["attempts"] = masks.attempts(row["attempts"], event)
    row["answer"] = masks.answer(row["answer"], event)
    if row["disabled"]:
        row["disabled"]["answered"] = masks.text(row["disabled"]["answered"])
    return row


def has_text(row: dict[str, Any], text: str) -> bool:
    """Return whether a delivery has a text in what is shown of it: topic, path, position or last error."""
    if not text:
        return True
    error = row["attempts"][-1]["error"] if row["attempts"] else ""
    return any(
        text.lower() in str(value or "").lower() for value in (row["topic"], row["subject"], row["position"], error)
    )
