"""The status of each resource in its last event."""

from __future__ import annotations

from bridge.domain.event import INTERNAL_CHANNEL
from bridge.domain.event_view import EventView
from bridge.domain.overdue import is_overdue
from bridge.protocols.journal import journal_batches
from bridge.protocols.ledger import Ledger


class LastEventStatuses:
    """The status of each resource in its last event, read from the journal."""

    def __init__(self, ledger: Ledger, source: str) -> None:
        self._ledger = ledger
        self._source = source
        self._after = 0
        self._last: dict[str, str] = {}

    def get(self, resource: str) -> str | None:
        """Return the status in the resource's last event; None if the journal has no event of it."""
        return self._last.get(resource)

    async def catch_up(self) -> None:
        """Read what was committed since the last call."""
        async for entries in journal_batches(self._ledger, self._source, after=self._after):
            for view in map(EventView.of, entries):
                if view.data.get("channel") != INTERNAL_CHANNEL and not is_overdue(view.data):
                    self._last[view.subject] = view.status
            self._after = entries[-1].position.seq
