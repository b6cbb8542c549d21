"""The Spacivox source: reads the slices that are due, compares nothing, and knows how far it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any, Literal
from urllib.parse import quote, unquote

import structlog
from pydantic import Field, field_validator

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.domain.settings import Duration, Secret, format_duration
from bridge.http import parsing
from bridge.http.client import HttpClient, HttpLimits, Origin
from bridge.http.errors import NotFound, ProviderError, Throttled
from bridge.http.headers import http_date
from bridge.http.limiter import account_key, shared_limiter
from bridge.http.response import Response
from bridge.protocols.source import GroupCounts, Observation, Page, Probe, ResourceType, SourceSettings
from bridge.sources.spacivox.records import LIFECYCLE, RECORDS, RecordType, Unreadable, kind_of, observe, scope_of
from bridge.sources.spacivox.window import (
    SMALLEST,
    Entries,
    Progress,
    Reach,
    Slice,
    due,
    final,
    moment,
    narrower,
    period,
)
from bridge.sources.spacivox.window import slices as sliced

log = structlog.get_logger()

_SKEW = timedelta(minutes=5)
"""Read so far into the future, and further where the provider's clock is seen to be ahead of ours."""
_SKEW_AT_MOST = timedelta(days=1)
_PAGE = 500
_DAY = 86400.0
_NO_CONTENT = 204
_SILENT_AT_MOST = 2
_WAITED_OUT = 60.0
_EDGE = timedelta(minutes=2)
"""So close to the window's ends nobody can say whether a record should have been shown."""
_LIMITS = HttpLimits(retries=1)


class SpacivoxSettings(SourceSettings):
    """A source of Spacivox records."""

    url: Origin
    """Where the API is: the customer's own host, such as https://spacivox.example.com."""
    token: Secret
    """The token that the vendor issued; sent as `Authorization: Bearer`."""
    team: int | list[int] | None = None
    """Only the records of this team, or of these; of all where it is left out."""
    records: list[Literal["voicemail_drop", "text", "email"]] = Field(default=["voicemail_drop"], min_length=1)
    """Which sorts of records are read."""
    interval: Duration = Field(default=60.0, gt=0)
    """How often the newest records are read."""
    lookback: Duration = Field(default=72 * 3600.0, gt=0)
    """For how long after its own timestamp a record is followed: later changes of its state are not seen."""
    reread_every: Duration = Field(default=600.0, gt=0)
    """How often, at the least, every record within `lookback` is looked at; young ones are looked at more often."""
    slice: Duration = Field(default=_DAY, ge=60)
    """For how much time one request asks; less where the provider cannot answer for so much."""
    overlap: Duration = Field(default=1.0, ge=0)
    """How far neighbouring requests overlap, since nobody says whether their ends are included."""
    catch_up: Duration = Field(default=30 * _DAY, gt=0)
    """How old records may be that are read after an outage of the bridge to make up for it."""
    timestamp_is: Literal["created", "updated"] = "created"
    """What a record's `timestamp` means, of which the vendor says nothing; `updated` makes it every event's time."""

    @field_validator("statuses")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        LIFECYCLE.with_names(value)
        return value


@dataclass(frozen=True, slots=True)
class RecordListing:
    """One sort of record, of one team or of all."""

    name: str
    sort: str
    record: RecordType
    kind: ResourceType
    params: Mapping[str, str | int]
    entries: Entries


@dataclass(slots=True)
class _Sweep:
    """What happened so far in one poll."""

    problems: list[str] = field(default_factory=list)
    unreadable: Counter[str] = field(default_factory=Counter)
    answered: bool = False
    """Whether any slice was read whole."""
    error: BridgeError | None = None
    silent: int = 0
    last: dict[str, str] = field(default_factory=dict)
    """The states on the answer before, by id: neighbouring answers overlap."""

    @property
    def unheard(self) -> bool:
        """Whether the server may not be there at all: some requests met silence, and none was answered."""
        return self.silent >= _SILENT_AT_MOST and not self.answered

    def failed(self, what: str, error: BridgeError) -> None:
        """Note a failure; raises it where going on would only mean to wait for a server that is not there."""
        unheard = self.unheard
        self.problems.append(f"{what}: {error}; read again at the next poll")
        self.error = error
        silent = isinstance(error, ProviderError) and error.status is None
        self.silent += silent
        if isinstance(error, Throttled) or (unheard and silent):
            raise error

    def end(self) -> None:
        """Report what could not be read; raises when nothing could."""
        self.problems += [f"{count} {what}: passed over" for what, count in self.unreadable.items()]
        if self.error is not None and not self.answered:
            raise self.error


class Spacivox:
    """Reads the records of the last `lookback`: the newest at each poll, older ones ever more seldom.

    A record's timestamp is taken for the time of its creation, so a cursor that only moves forward would miss every
    later state: the window trails instead, and the ledger compares by id. The cursor keeps, for each listing, the
    `floor` before which all is done, and when each slice was last read whole; after an outage the window reaches back
    to where it stood. A slice that fails does not stop the others, and is read again: after silence, the newest is
    asked for before the server is taken to be away, and a poll after one that ended with a wish for quiet begins at the
    other end.
    """

    def __init__(self, name: str, settings: SpacivoxSettings, clock: Clock) -> None:
        self.name = name
        self.problems: list[str] = []
        self.behind = False
        self.retention = settings.catch_up + settings.lookback + _DAY
        self.backfill_step = settings.slice
        self._settings = settings
        self._clock = clock
        self._size = timedelta(seconds=settings.slice)
        self._lookback = timedelta(seconds=settings.lookback)
        self._overlap = timedelta(seconds=settings.overlap)
        self._listings = list(_listings(settings))
        self._reach = {listing.name: Reach(self._size) for listing in self._listings}
        self._ahead = timedelta(0)
        self._newest_first = False
        self.account = account_key(settings.url, settings.token.reveal())
        """See `bridge.source.Accounted`."""
        limiter = shared_limiter(self.account, settings.rate, clock)
        self._client = HttpClient(settings.url, limiter=limiter, clock=clock, headers=self._headers, limits=_LIMITS)

    async def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._settings.token.reveal()}"}

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Read every slice that is due, as a rule the oldest first; raises when none of them could be read."""
        del watched
        sweep = self._sweep()
        for listing in self._listings:
            try:
                async for page in self._poll(listing, cursor, sweep):
                    yield page
            except (Unauthorized, NotFound) as error:
                sweep.failed(listing.name, error)
            except Throttled:
                # Were it one slice that is answered so each time, those behind it would never have their turn.
                self._newest_first = not self._newest_first
                raise
        self._newest_first = False
        sweep.end()

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Read all records of a past range once, the oldest first, and leave the cursor alone."""
        sweep = self._sweep()
        for listing in self._listings:
            for part in sliced(start, end, self._size):
                try:
                    async for page in self._pages(listing, part, None, sweep):
                        yield page
                except LeaseLost:
                    raise
                except BridgeError as error:
                    sweep.failed(f"{listing.name} from {moment(part.start)}", error)
        sweep.end()

    def _sweep(self) -> _Sweep:
        sweep = _Sweep()
        self.problems = sweep.problems
        return sweep

    async def _poll(self, listing: RecordListing, cursor: Mapping[str, str], sweep: _Sweep) -> AsyncIterator[Page]:
        now = self._clock.now()
        progress, changes = self._resume(listing, cursor, now)
        begun = self._begun(listing, cursor, progress, changes, now)
        self._reach[listing.name].begin()
        sweep.last = {}
        parts = self._due(progress, now)
        while parts:
            part, after = parts.pop(-1 if self._newest_first or sweep.unheard else 0)
            started = self._clock.now()
            held: Page | None = None
            found_then = None if part.grid in progress.read else begun
            try:
                async for page in self._pages(listing, part, after, sweep, found_then):
                    if held is not None:
                        yield held
                    held = page
            except (LeaseLost, Unauthorized, NotFound):
                raise
            except BridgeError as error:
                if held is not None:
                    yield held
                sweep.failed(f"{listing.name} from {moment(part.start)}", error)
            else:
                progress.read[part.grid] = started
                yield replace(held or Page((), by=started), cursor=changes | self._moved(listing, progress, part))
                changes = {}

    @staticmethod
    def _begun(
        listing: RecordListing,
        cursor: Mapping[str, str],
        progress: Progress,
        changes: dict[str, str | None],
        now: datetime,
    ) -> datetime | None:
        """Return when the listing was polled first, as long as what is older than that may not have been read."""
        entries = listing.entries
        if entries.floor not in cursor:
            changes[entries.begun] = moment(now)
            return now
        begun = parsing.time(cursor.get(entries.begun))
        if entries.begun in cursor and (begun is None or progress.floor >= begun):
            changes[entries.begun] = None
            return None
        return begun

    def _due(self, progress: Progress, now: datetime) -> list[tuple[Slice, datetime | None]]:
        """Return the slices to read now, each with a time at which its records had been looked at or did not exist."""
        interval, at_least = self._settings.interval, self._settings.reread_every
        return [
            (part, progress.before(part, self._size))
            for part in sliced(progress.floor, now + _SKEW + self._ahead, self._size)
            if due(part, progress.read.get(part.grid), now, interval, at_least)
        ]

    def _resume(
        self, listing: RecordListing, cursor: Mapping[str, str], now: datetime
    ) -> tuple[Progress, dict[str, str | None]]:
        oldest = now - max(timedelta(seconds=self._settings.catch_up), self._lookback)
        progress, stale = listing.entries.load(cursor, now, self._lookback)
        if progress.floor < oldest:
            log.warning(
                "source.outage_too_long",
                source=self.name,
                listing=listing.name,
                since=moment(progress.floor),
                consequence=f"records before {moment(oldest)} are not read any more; see catch_up, or backfill them",
            )
            stale += [listing.entries.read(grid) for grid in progress.cut(oldest, self._size)]
        return progress, dict.fromkeys(stale)

    def _moved(self, listing: RecordListing, progress: Progress, part: Slice) -> dict[str, str | None]:
        entries = listing.entries
        changes: dict[str, str | None] = {entries.read(part.grid): moment(progress.read[part.grid])}
        changes |= {entries.read(grid): None for grid in progress.advance(self._size, self._lookback)}
        return changes | {entries.floor: moment(progress.floor)}

    async def _pages(
        self, listing: RecordListing, part: Slice, after: datetime | None, sweep: _Sweep, begun: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Read one slice whole; records from before the first poll, which `begun` then, are its backlog."""
        async for answer in self._answers(listing, part):
            observations = list(self._news(listing, _records(answer), sweep))
            for backlog, some in _parted(observations, begun):
                for start in range(0, max(1, len(some)), _PAGE):
                    yield Page(some[start : start + _PAGE], answer.at, after, backlog=backlog)
        sweep.answered = True

    async def _answers(self, listing: RecordListing, part: Slice) -> AsyncIterator[Response]:
        """Ask for a slice in as few requests as the provider bears; what it bore last is tried first."""
        reach = self._reach[listing.name]
        position = part.start
        while position < part.end:
            span = min(reach.span, part.end - position)
            try:
                answer = await self._ask(listing, position - self._overlap, position + span + self._overlap)
            except (LeaseLost, Throttled):
                raise  # that says nothing of the span: what was found by trying holds at the next poll as well
            except BridgeError as error:
                less = narrower(error, span)
                reach.refuse(span, less)
                if less is None:
                    raise final(error) from None
                await self._wait_out(error)
            else:
                reach.bear()
                yield answer
                position += span

    async def _wait_out(self, error: BridgeError) -> None:
        """Wait until less may be asked for; raises `error` where its wish for quiet is too long for that."""
        quiet = (error.retry_after if isinstance(error, ProviderError) else None) or 0.0
        if quiet > _WAITED_OUT:
            raise error
        if quiet:
            await self._clock.sleep(quiet)

    async def _ask(self, listing: RecordListing, start: datetime, end: datetime) -> Response:
        params = {"start": moment(start), "end": moment(end), **listing.params}
        answer = await self._client.get(listing.record.path, params)
        self._ahead = _ahead(answer)
        return answer

    @staticmethod
    def _news(listing: RecordListing, records: Sequence[Any], sweep: _Sweep) -> Iterator[Observation]:
        """Yield what each record shows, and what the answer before has shown already not again.

        A record that is in one answer twice is in the state that it has there last.
        """
        before = sweep.last
        shown: dict[str, Observation] = {}
        for item in records:
            one = observe(listing.sort, listing.record, listing.kind, item)
            if isinstance(one, Unreadable):
                sweep.unreadable[f"records of {listing.name} {one.reason}"] += 1
            else:
                shown[one.key] = one
        sweep.last = {key: one.status for key, one in shown.items()}
        yield from (one for key, one in shown.items() if before.get(key) != one.status)

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        """Yield the paths of the sorts of records that are read; see `bridge.source.Countable`."""
        del cursor, watched, everything
        for path in dict.fromkeys(listing.record.path for listing in self._listings):
            yield path

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        """Say that the window has to be read whole, since the provider counts nothing; costs no request.

        What is in the window follows from a record's timestamp as it was told last, and not from its id.
        """
        del cursor, ask
        listing = next((each for each in self._listings if each.record.path == group), None)
        if listing is None:
            return None
        now = self._clock.now()
        return GroupCounts(
            group,
            now,
            listing.kind,
            lambda name: f"{group}/{quote(name, safe='')}",
            needs_full_read=True,
            expects=partial(self._expects, listing.sort, now),
            remarks=(f"the provider keeps no counts; the last {format_duration(self._settings.lookback)} were read",),
        )

    def _expects(self, sort: str, now: datetime, resource: str, data: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return scope and key of a record of our teams that lies within the window, well away from its edges."""
        when = parsing.time(data.get("timestamp"))
        if when is None or not now - self._lookback + _EDGE < when < now - _EDGE or not self._is_ours(data.get("team")):
            return None
        key = unquote(resource.rpartition("/")[2])
        return scope_of(sort, key, data["timestamp"]), key

    def _is_ours(self, team: Any) -> bool:
        ours = {str(listing.params["team"]) for listing in self._listings if listing.params}
        return not ours or str(team) in ours

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        """Read all records of the last `lookback`; see `bridge.source.Countable`."""
        del cursor
        now = self._clock.now()
        for listing in self._listings:
            if listing.record.path != group:
                continue
            sweep = _Sweep()
            for part in sliced(now - self._lookback, now + _SKEW, self._size):
                async for page in self._pages(listing, part, None, sweep):
                    yield page

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return the observations: a record is complete as it is listed."""
        return observations

    def resource(self, text: str) -> str:
        """Raise `ValueError`: all records of the window are followed anyway."""
        raise ValueError(
            f"{text}: nothing to name, a spacivox source follows every record for "
            f"{format_duration(self._settings.lookback)} by itself"
        )

    async def probe(self) -> Probe:
        """Ask for the last minute of each listing."""
        now = self._clock.now()
        found = 0
        for listing in self._listings:
            found += len(_records(await self._ask(listing, now - SMALLEST, now)))
        names = ", ".join(listing.name for listing in self._listings)
        requests = self._requests_per_day()
        summary = (
            f"{self._client.origin.host} answers for {names} ({found} in the last minute); "
            f"following {format_duration(self._settings.lookback)} costs about {requests:.0f} requests a day"
        )
        return Probe(summary, requests)

    def _requests_per_day(self) -> float:
        settings = self._settings
        older = (
            period((index + 0.5) * settings.slice, settings.interval, settings.reread_every)
            for index in range(math.ceil(settings.lookback / settings.slice))
        )
        return len(self._listings) * (_DAY / settings.interval + sum(_DAY / each for each in older))

    async def close(self) -> None:
        """Give back connections."""
        await self._client.close()


def _listings(settings: SpacivoxSettings) -> Iterator[RecordListing]:
    teams = settings.team if isinstance(settings.team, list) else [settings.team]
    for sort in dict.fromkeys(settings.records):
        record = RECORDS[sort]
        kind = kind_of(record, settings.statuses, settings.timestamp_is)
        for team in dict.fromkeys(teams or [None]):
            name = sort if team is None else f"{sort}@{team}"
            params = {} if team is None else {"team": team}
            yield RecordListing(name, sort, record, kind, params, Entries(name, timedelta(seconds=settings.slice)))


def _parted(observations: Sequence[Observation], begun: datetime | None) -> Iterator[tuple[bool, list[Observation]]]:
    """Yield the records in their order, those from before the first poll apart, as a backlog."""

    def is_old(one: Observation) -> bool:
        when = parsing.time(one.item.get("timestamp"))
        return begun is not None and when is not None and when <= begun

    if not observations:
        yield False, []
    for old, some in groupby(observations, key=is_old):
        yield old, list(some)


def _ahead(answer: Response) -> timedelta:
    """Return by how much the provider's clock is ahead of ours; zero where it is not, or says nothing of use."""
    theirs = http_date(answer.headers.get("Date"))
    ahead = timedelta(0) if theirs is None else theirs - answer.at
    return ahead if timedelta(0) < ahead <= _SKEW_AT_MOST else timedelta(0)


def _records(answer: Response) -> list[Any]:
    """Return the array of an answer; raises `ProviderError` for anything else, which is not taken for empty."""
    if answer.status == _NO_CONTENT:
        return []
    value = answer.json()
    if not isinstance(value, list):
        raise answer.refused("the provider answered something else than a list")
    return value
