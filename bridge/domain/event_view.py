"""An event's body as plain values, read when asked: for code that needs a few words of it and no typed class."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from pydantic_core import from_json

from bridge.domain.event import JournalEntry, Position, WireEvent


def plain_values(body: bytes) -> dict[str, Any]:
    """Return a body as plain values, an empty mapping if it is no JSON object."""
    try:
        value = from_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class EventView:
    """One entry of a journal; a body that is not a JSON object reads as an empty one, and nothing raises."""

    position: Position
    event: WireEvent

    @classmethod
    def of(cls, entry: JournalEntry) -> EventView:
        """Return the view of a journal entry."""
        return cls(entry.position, entry.event)

    @cached_property
    def body(self) -> dict[str, Any]:
        """The CloudEvent as plain values."""
        return plain_values(self.event.body)

    @cached_property
    def data(self) -> dict[str, Any]:
        """The event's data."""
        value = self.body.get("data")
        return value if isinstance(value, dict) else {}

    @property
    def subject(self) -> str:
        """The resource's path; empty where the body has none."""
        return str(self.body.get("subject") or "")

    @property
    def status(self) -> str:
        """The status that the resource entered; empty where the body has none."""
        return str(self.data.get("status") or "")

    @property
    def partition(self) -> str:
        """The partition key: events with the same one are ordered; the event's id where the body has none."""
        return str(self.body.get("partitionkey") or self.event.id)

    @cached_property
    def recorded(self) -> datetime | None:
        """When the event was committed; None where that cannot be read."""
        try:
            return datetime.fromisoformat(str(self.body.get("recordedtime")))
        except ValueError:
            return None

    def within(self, since: datetime | None, until: datetime | None) -> bool:
        """Return whether the event was recorded from `since` on and before `until`; None is no bound."""
        if self.recorded is None:
            return since is None and until is None
        return (since is None or self.recorded >= since) and (until is None or self.recorded < until)
