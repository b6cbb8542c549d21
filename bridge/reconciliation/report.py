"""The result of a comparison: each group's counts, and the resources that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bridge.protocols.deliveries import DeliveryCounts
from bridge.protocols.ledger import JournalState
from bridge.protocols.source import Statistics


@dataclass(frozen=True, slots=True)
class Difference:
    """One resource on which the books do not agree."""

    resource: str
    """Its path at the provider."""
    group: str
    what: str
    """`missing`: the ledger does not know it. `status`: ledger and provider disagree. `gone`: the provider does not
    show it any more. `withheld`: the provider counts it and lists it nowhere; of a group: the provider counts more than
    it lists and the ledger knows. `event`: the last event has another status than the ledger. `unconfirmed`: the broker
    has not confirmed its event. `undelivered`: a sink's books do not know its event."""
    provider: str | None = None
    ledger: str | None = None
    event: str | None = None
    """The status in the last event."""
    sink: str | None = None


@dataclass(slots=True)
class GroupBook:
    """What the books say of one group: its resources by status."""

    group: str
    label: str
    """Channel and entity of the resources, such as `voice recipient`."""
    provider: Mapping[str, int] | None = None
    """None if the provider counts nothing and its resources were not read."""
    ledger: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SinkBook:
    """What one sink's books say of one source."""

    counts: DeliveryCounts
    unaccounted: int
    """Events that the sink should know and does not: on their way to it, or lost there."""


@dataclass(slots=True)
class Report:
    """The result of a comparison."""

    source: str
    at: datetime
    groups: list[GroupBook] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    """Where the provider contradicts itself: its own difference, not ours."""
    remarks: list[str] = field(default_factory=list)
    """What could not be compared, and why."""
    statistics: list[Statistics] = field(default_factory=list)
    """What the provider counts over all groups. A difference from what is known here belongs to no resource."""
    failures: dict[str, str] = field(default_factory=dict)
    """The groups that could not be read, and why."""
    journal: JournalState = field(default_factory=JournalState)
    sinks: dict[str, SinkBook] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether everything that was to be compared was compared and agrees."""
        return not self.differences and not self.failures

    def totals(self) -> dict[str, dict[str, Counter[str]]]:
        """Return for each label what provider, ledger and events count in all groups together."""
        totals: dict[str, dict[str, Counter[str]]] = {}
        for book in self.groups:
            row = totals.setdefault(book.label, {"provider": Counter(), "ledger": Counter(), "events": Counter()})
            row["provider"].update(book.provider or {})
            row["ledger"].update(book.ledger)
            row["events"].update(book.events)
        return totals
