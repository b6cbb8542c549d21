"""Two sets of events, compared by id and by what they say; when each was recorded makes no difference."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_RECORDED = "recordedtime"
_ABSENT = object()

Event = dict[str, Any]


class Side(StrEnum):
    """Where an event is."""

    FIRST = "first"
    """Only the first side makes it."""
    SECOND = "second"
    """Only the second side makes it."""
    BOTH = "both"
    """Both make it, and it says something else."""


@dataclass(frozen=True, slots=True)
class EventDifference:
    """An event that two sides make differently."""

    side: Side
    event: Event
    """As the first side makes it, where it does."""
    changes: tuple[tuple[str, Any, Any], ...] = ()
    """Of one that both make: each field that differs, by its path (`data.status`), with both values; None is absent."""

    def plain(self) -> Event:
        """Return the difference as JSON values."""
        changes = [{"field": name, "first": change, "second": other} for name, change, other in self.changes]
        return {"in": str(self.side), "event": self.event, **({"changes": changes} if changes else {})}


async def compare(first: AsyncIterator[Event], second: AsyncIterator[Event]) -> AsyncIterator[EventDifference]:
    """Yield what differs, in the order of the second side; at the end what only the first side makes.

    An event that one side makes twice counts once. All events of the first side are kept in memory.
    """
    left = {event["id"]: json.dumps(event) async for event in first}
    seen: set[str] = set()
    async for event in second:
        name = event["id"]
        if name in seen:
            continue
        seen.add(name)
        text = left.pop(name, None)
        if text is None:
            yield EventDifference(Side.SECOND, event)
            continue
        before = json.loads(text)
        if changes := tuple(_changes(before, event, "")):
            yield EventDifference(Side.BOTH, before, changes)
    for text in left.values():
        yield EventDifference(Side.FIRST, json.loads(text))


def _changes(value: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(value, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*value, *other)):
            if path or name != _RECORDED:
                yield from _changes(
                    value.get(name, _ABSENT), other.get(name, _ABSENT), f"{path}.{name}" if path else name
                )
    elif value != other:
        yield path, _present(value), _present(other)


def _present(value: Any) -> Any:
    return None if value is _ABSENT else value
