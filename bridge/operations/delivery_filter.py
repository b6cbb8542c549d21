"""Which deliveries an operator means: by state, reason, the endpoint's status, topic and time; page by page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from bridge.domain import topics as patterns
from bridge.domain.event import Position
from bridge.domain.event_view import EventView
from bridge.protocols.deliveries import Delivery, Place

if TYPE_CHECKING:
    from bridge.protocols.store import Store

STATES = ("waiting", "dead")
REASONS = ("permanent", "exhausted", "malformed", "expired", "refused")
_PAGE_DELIVERIES = 1000
_STATUS = re.compile(r" answered (\d{3})\b")


@dataclass(frozen=True, slots=True)
class Selected:
    """A delivery with its event; None if the journal has the event no more."""

    delivery: Delivery
    event: EventView | None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """What a delivery has to be like; an empty field asks for nothing."""

    states: tuple[str, ...] = STATES
    reasons: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()
    topics: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether anything but the state is asked for."""
        return any((self.reasons, self.codes, self.topics, self.since, self.until))

    def selects(self, selected: Selected) -> bool:
        """Return whether a delivery is meant. What is not known of one whose event is gone, is not as asked for."""
        delivery, event = selected.delivery, selected.event
        if self.reasons and delivery.reason not in self.reasons:
            return False
        if self.codes and code_of(delivery) not in self.codes:
            return False
        if self.topics and (event is None or not patterns.matches(self.topics, event.event.topic)):
            return False
        if self.since is None and self.until is None:
            return True
        return event is not None and event.within(self.since, self.until)


def code_of(delivery: Delivery) -> int | None:
    """Return the HTTP status of the endpoint's last answer; None if there was none."""
    if delivery.answer is not None:
        return delivery.answer.status
    match = _STATUS.search(delivery.attempts[-1].error) if delivery.attempts else None
    return int(match[1]) if match is not None else None


async def select(
    store: Store, sink: str, wanted: DeliveryFilter, after: Place | None = None
) -> AsyncIterator[Selected]:
    """Yield the deliveries of a sink that are meant, those due first at the front, from behind `after` on."""
    while page := await store.deliveries(sink, states=wanted.states, limit=_PAGE_DELIVERIES, after=after):
        entries = await store.entries([delivery.position for delivery in page])
        for delivery, entry in zip(page, entries, strict=True):
            selected = Selected(delivery, None if entry is None else EventView.of(entry))
            if wanted.selects(selected):
                yield selected
        if len(page) < _PAGE_DELIVERIES:
            return
        after = page[-1].place


# --- pages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PageMark:
    """Where a page ended; the next one begins behind it."""

    sink: str
    place: Place

    def __str__(self) -> str:
        due, position = self.place
        return f"{self.sink}/{due!r}/{position}"

    @classmethod
    def parse(cls, text: str) -> PageMark:
        """Read a mark; raises `ValueError`."""
        sink, _, rest = text.partition("/")
        due, _, position = rest.partition("/")
        try:
            return cls(sink, (float(due), Position.parse(position)))
        except ValueError:
            raise ValueError(f"{text!r} is no mark of a page; give what the page before ended with") from None


def sinks_from(sinks: Sequence[str], mark: PageMark | None) -> Sequence[str]:
    """Return the sinks that are still to be listed; raises `ValueError` if the mark is of another list."""
    if mark is None:
        return sinks
    if mark.sink not in sinks:
        raise ValueError(f"the mark is of the sink {mark.sink!r}, which is not listed")
    return sinks[list(sinks).index(mark.sink) :]
