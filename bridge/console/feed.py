"""The newest events of all journals, filtered, page by page backwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.console.masks import Masks
from bridge.domain import topics as patterns
from bridge.domain.event_view import EventView
from bridge.domain.personal_data import PERSONAL_FIELDS

if TYPE_CHECKING:
    from bridge.protocols.ledger import Ledger

PAGE_EVENTS = 50
_BATCH_EVENTS = 200
_MAX_READ_EVENTS = 20_000
"""Events that are read for one page; a filter that finds too few goes on from there on the next page."""
_EVENTS_BETWEEN_RESTS = 100
_TEXTS = ("error", "reason")


@dataclass(frozen=True, slots=True)
class EventSearch:
    """What an event has to be like; an empty field asks for nothing."""

    topics: tuple[str, ...] = ()
    source: str = ""
    status: str = ""
    text: str = ""
    """A part of its error or reason as it is shown: what is masked cannot be searched for."""
    key: str = ""
    """A whole phone or key, the whole path of its resource or its last part, or the event's id."""

    def selects(self, view: EventView, masks: Masks) -> bool:
        """Return whether an event is meant."""
        if self.topics and not patterns.matches(self.topics, view.event.topic):
            return False
        if self.status and view.status != self.status:
            return False
        return self._has_key(view) and self._has_text(view, masks)

    def _has_key(self, view: EventView) -> bool:
        if not self.key:
            return True
        if self.key.encode() not in view.event.body:
            return False
        values = {str(view.data[name]) for name in PERSONAL_FIELDS if view.data.get(name)}
        return self.key in {*values, view.event.id, view.subject, view.subject.rpartition("/")[2]}

    def _has_text(self, view: EventView, masks: Masks) -> bool:
        if not self.text:
            return True
        texts = (str(view.data[name]) for name in _TEXTS if view.data.get(name))
        return any(self.text.lower() in (masks.text(text, view) or "").lower() for text in texts)


@dataclass(slots=True)
class EventPage:
    """The newest events that are meant, and where the next page begins."""

    views: list[EventView] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    """For each journal, the number before which the next page begins; without any, there is none."""
    read: int = 0
    """How many events were looked at."""


async def newest_events(
    ledger: Ledger, sources: Sequence[str], wanted: EventSearch, masks: Masks, before: Mapping[str, int]
) -> EventPage:
    """Read backwards from `before`, or from the end, until a page is full or enough was read."""
    journals = [name for name in sources if not wanted.source or name == wanted.source]
    readers = {name: _backwards(ledger, name, before.get(name)) for name in journals if before.get(name) != 0}
    heads = {name: view for name, reader in readers.items() if (view := await anext(reader, None)) is not None}
    page = EventPage()
    while heads and len(page.views) < PAGE_EVENTS and page.read < _MAX_READ_EVENTS:
        name = max(heads, key=lambda name: _age(heads[name]))
        view = heads.pop(name)
        page.read += 1
        if wanted.selects(view, masks):
            page.views.append(view)
        following = await anext(readers[name], None)
        if following is not None:
            heads[name] = following
        if page.read % _EVENTS_BETWEEN_RESTS == 0:
            await asyncio.sleep(0)  # whatever else the process does goes on
    if heads:
        page.before = {name: heads[name].position.seq + 1 if name in heads else 0 for name in journals}
    return page


def _age(view: EventView) -> tuple[str, int]:
    return str(view.body.get("recordedtime") or ""), view.position.seq


async def _backwards(ledger: Ledger, source: str, before: int | None) -> AsyncIterator[EventView]:
    """Yield the events of a journal, the last one first."""
    state = await ledger.journal(source)
    end = state.committed + 1 if before is None else min(before, state.committed + 1)
    while end > state.first:
        start = max(state.first, end - _BATCH_EVENTS)
        entries = [entry for entry in await ledger.read(source, start - 1, end - start) if entry.position.seq < end]
        for entry in reversed(entries):
            yield EventView.of(entry)
        end = start
