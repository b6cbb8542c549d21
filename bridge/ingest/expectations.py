"""Which resources of a source should have a final status by when, and since when its provider has said something."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bridge.domain.clock import Clock
from bridge.domain.event import INTERNAL_CHANNEL
from bridge.domain.event_view import EventView
from bridge.domain.expect import ExpectSettings
from bridge.domain.lifecycle import awaits_final
from bridge.domain.overdue import is_overdue
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.protocols.journal import journal_batches
from bridge.protocols.ledger import Expectation, Key, Lease, Ledger
from bridge.protocols.source import Observation, ResourceType

SINCE = "~expect"
"""The cursor's entry that says since when final statuses are waited for; stored by this name."""
ACTIVITY = "~activity"
"""The cursor's entry that says when the last event was recorded; stored by this name."""
QUIET = "~quiet"
"""The cursor's entry of a source that was published as quiet: since when it is; stored by this name."""
_MAX_EARLIER_RESOURCES = 100_000
"""Resources that were there before final statuses were waited for, and are waited for all the same."""
_EARLIER_SLACK = timedelta(hours=1)


@dataclass(slots=True)
class EarlierResource:
    """What the journal tells of a resource."""

    due: int
    seq: int


@dataclass(slots=True)
class FinalStatuses:
    """Says by when resources should have a final status.

    If `final_within` is new to a source, its journal is read once: a resource that the journal knows, and that the next
    polls show, is due as if it had been waited for from the start. One that the journal does not know is due
    `final_within` after its status changes next.
    """

    final_within: float
    """Seconds from the first event of a resource to the time at which it should have a final status."""
    earlier: dict[str, EarlierResource] = field(default_factory=dict)
    """By subject: what the journal knows and the store does not yet."""
    next_due: float = -math.inf
    """No resource is due before, as far as this process knows; the store is asked from then on."""
    is_ready: bool = False

    @classmethod
    def of(cls, expect: ExpectSettings | None) -> FinalStatuses | None:
        """Return what settings ask for; None if they ask for no final status."""
        return None if expect is None or expect.final_within is None else cls(expect.final_within)

    def due(self, recorded: datetime) -> int:
        """Return when a resource is due whose first event was recorded then, in seconds since 1970."""
        return math.ceil(recorded.timestamp() + self.final_within)

    def is_open(self, kind: ResourceType, history: str | None) -> bool:
        """Say whether a final status is waited for, by the history of a resource."""
        return kind.overdue is not None and awaits_final(kind.lifecycle, history)

    def earlier_expectation(self, observation: Observation, key: Key, history: str) -> tuple[str, Expectation] | None:
        """Return what is to be written of a resource that was there before; None if it is not waited for."""
        if not self.earlier or not self.is_open(observation.kind, history):
            return None
        try:
            subject = observation.kind.describe(observation).subject
        except Exception:  # noqa: BLE001 - a plugin's fault in one resource must not stop the sweep
            return None
        known = self.earlier.get(subject)
        return None if known is None else (subject, Expectation(key, known.due, known.seq))

    def on_commit(self, expected: Sequence[Expectation], earlier: Sequence[str]) -> None:
        """Note what was written."""
        for subject in earlier:
            self.earlier.pop(subject, None)
        if expected:
            self.next_due = min(self.next_due, *(expectation.due for expectation in expected))

    async def begin(self, ledger: Ledger, source: str, clock: Clock, cursor: Mapping[str, str]) -> dict[str, str]:
        """Get ready for a poll; return the cursor's entries to write with it."""
        now = truncate_to_millis(clock.now())
        since = datetime.fromisoformat(cursor[SINCE]) if SINCE in cursor else now
        if now - since > timedelta(seconds=self.final_within) + _EARLIER_SLACK:
            self.earlier.clear()
        elif not self.is_ready and any(not name.startswith("~") for name in cursor):
            await self._read_journal(ledger, source)
        self.is_ready = True
        return {} if SINCE in cursor else {SINCE: rfc3339(now)}

    async def _read_journal(self, ledger: Ledger, source: str) -> None:
        earlier: dict[str, EarlierResource] = {}
        async for entries in journal_batches(ledger, source):
            for view in map(EventView.of, entries):
                if view.data.get("channel") == INTERNAL_CHANNEL or is_overdue(view.data) or view.recorded is None:
                    continue
                known = earlier.pop(view.subject, None)
                due = self.due(view.recorded) if known is None else known.due
                earlier[view.subject] = EarlierResource(due, view.position.seq)
            while len(earlier) > _MAX_EARLIER_RESOURCES:
                earlier.pop(next(iter(earlier)))
        self.earlier = earlier


async def begin_expecting(
    finals: FinalStatuses | None, ledger: Ledger, lease: Lease, source: str, clock: Clock, cursor: Mapping[str, str],
    *, notes_activity: bool = False,
) -> dict[str, str | None]:  # fmt: skip
    """Get ready for a poll, and return the cursor's entries to write; forget what is not waited for any more."""
    entries: dict[str, str | None] = {}
    if not notes_activity:
        entries |= {name: None for name in (ACTIVITY, QUIET) if name in cursor}
    if finals is not None:
        entries |= await finals.begin(ledger, source, clock, cursor)
    elif SINCE in cursor:
        await ledger.drop_expectations(lease, source)
        entries[SINCE] = None
    return entries
