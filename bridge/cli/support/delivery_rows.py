"""Deliveries as rows of tables, and as a person may see them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bridge.cli.support.output import ago
from bridge.delivery.masking import apply
from bridge.domain.errors import Permanent
from bridge.domain.event import JournalEntry
from bridge.domain.event_view import EventView
from bridge.operations.delivery_filter import Selected


def delivery_row(described: Mapping[str, Any], subject: str | None, now: datetime) -> list[Any]:
    """Return the row of a delivery as `plain_delivery` describes it, with its subject as a person may see it."""
    state = f"dead: {described['reason']}" if described["state"] == "dead" else described["state"]
    due = described["due"] and ago(datetime.fromisoformat(described["due"]), now)
    if due and described["disabled"]:
        due = "when enabled"
    tries = described["attempts"]
    return [
        described["sink"], described["position"], described["topic"], subject, state, len(tries), due,
        tries[-1]["error"] if tries else None,
    ]  # fmt: skip


def masked_subject(selected: Selected) -> str | None:
    """Return the subject of a delivery's event, with a token for each phone or key in it; None without the event."""
    if selected.event is None:
        return None
    view = selected.event
    try:
        return EventView(view.position, apply("last4", view.event, b"")).subject
    except Permanent:
        return None


def masked_event(entry: JournalEntry | None) -> str:
    """Return an event as text for a person, of whose phones, addresses and keys the last four characters stay."""
    if entry is None:
        return "the journal has it no more"
    try:
        body = apply("last4", entry.event, b"").body
    except Permanent:
        return "cannot be read"
    return json.dumps(json.loads(body), ensure_ascii=False, indent=2)
