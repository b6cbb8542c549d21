"""The listings that a Spacivox source reads, and what an answer of one shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from bridge.http import parsing
from bridge.http.response import Response
from bridge.http.status import NO_CONTENT_STATUS
from bridge.protocols.source import Observation, ResourceType
from bridge.sources.shapes.sweep import Sweep
from bridge.sources.shapes.window import CursorKeys
from bridge.sources.spacivox.records import RECORDS, RecordType, Unreadable, kind_of, observe
from bridge.sources.spacivox.settings import SpacivoxSettings


@dataclass(frozen=True, slots=True)
class RecordListing:
    """One sort of record, of one team or of all."""

    name: str
    sort: str
    record: RecordType
    kind: ResourceType
    params: Mapping[str, str | int]
    keys: CursorKeys


def listings(settings: SpacivoxSettings) -> Iterator[RecordListing]:
    """Yield the listings of all configured sorts and teams."""
    teams = settings.team if isinstance(settings.team, list) else [settings.team]
    for sort in dict.fromkeys(settings.records):
        record = RECORDS[sort]
        kind = kind_of(record, settings.statuses, settings.timestamp_is)
        for team in dict.fromkeys(teams or [None]):
            name = sort if team is None else f"{sort}@{team}"
            params = {} if team is None else {"team": team}
            yield RecordListing(name, sort, record, kind, params, CursorKeys(name, timedelta(seconds=settings.slice)))


@dataclass(slots=True)
class RecordSweep(Sweep):
    """What happened so far in one poll of all listings."""

    _last_states: dict[str, str] = field(default_factory=dict)
    """The states in the answer before, by id: neighbouring answers overlap."""

    def begin(self) -> None:
        """Begin another listing, whose first answer overlaps with none."""
        self._last_states = {}

    def news(self, listing: RecordListing, records: Sequence[Any]) -> Iterator[Observation]:
        """Yield what each record shows, except what the answer before has shown already.

        If an answer has a record twice, the last state counts.
        """
        before = self._last_states
        shown: dict[str, Observation] = {}
        for item in records:
            record = observe(listing.sort, listing.record, listing.kind, item)
            if isinstance(record, Unreadable):
                self.unreadable[f"records of {listing.name} {record.reason}"] += 1
            else:
                shown[record.key] = record
        self._last_states = {key: observation.status for key, observation in shown.items()}
        yield from (observation for key, observation in shown.items() if before.get(key) != observation.status)


def split_backlog(
    observations: Sequence[Observation], first_polled: datetime | None
) -> Iterator[tuple[bool, list[Observation]]]:
    """Yield the records in their order; runs of records from before the first poll are marked as backlog."""

    def is_old(observation: Observation) -> bool:
        when = parsing.time(observation.item.get("timestamp"))
        return first_polled is not None and when is not None and when <= first_polled

    if not observations:
        yield False, []
    for old, run in groupby(observations, key=is_old):
        yield old, list(run)


def records_of(answer: Response) -> list[Any]:
    """Return the array of an answer; raises `ProviderError` for anything else, which does not count as empty."""
    return [] if answer.status == NO_CONTENT_STATUS else answer.json_list()
