"""The event that a resource has had no final status for too long: its data, and how it is told from a status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.domain.event import EventModel, event_id
from bridge.domain.times import Time

OVERDUE = "overdue"
"""The third word of the topics of overdue events. It names no status of a provider."""


class OverdueFields(EventModel):
    """What the data of an overdue event has beyond that of the resource's other events."""

    stands_in: str
    """The status in which the resource stands; `previous` has it, too."""
    since: Time
    """The `time` of the event that told of this status."""
    due: Time
    """When the resource should have had a final status."""


def overdue_id(source: str, subject: str) -> str:
    """Return the id of the one overdue event that a resource can have."""
    return event_id(source, subject, f"{OVERDUE}:", 0)


def is_overdue(data: Mapping[str, Any]) -> bool:
    """Say whether an event's data is that of an overdue event: no status of the provider, even if one has this name."""
    return data.get("status") == OVERDUE and "stands_in" in data
