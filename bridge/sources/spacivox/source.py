"""The Spacivox source: reads the slices of the window that are due, and keeps in the cursor how far it is."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.domain.settings import format_duration
from bridge.http import parsing
from bridge.http.client import HttpLimits
from bridge.http.errors import NotFound, ProviderError, Throttled
from bridge.http.headers import http_date
from bridge.http.response import Response
from bridge.protocols.source import GroupCounts, Page, Probe
from bridge.sources.base import BaseSource
from bridge.sources.shapes.span import SMALLEST_SPAN, AdaptiveSpan, final_error, smaller_span
from bridge.sources.shapes.window import Progress, Slice, due_slices, period, slices, vendor_time
from bridge.sources.spacivox.listings import RecordListing, RecordSweep, listings, records_of, split_backlog
from bridge.sources.spacivox.records import scope_of
from bridge.sources.spacivox.settings import SpacivoxSettings

log = structlog.get_logger()

_READ_AHEAD = timedelta(minutes=5)
"""How far into the future records are read; further if the provider's clock is seen to be ahead of ours."""
_MAX_CLOCK_LEAD = timedelta(days=1)
_PAGE_RECORDS = 500
_DAY_SECONDS = 86400.0
_MAX_RETRY_WAIT_SECONDS = 60.0
_WINDOW_EDGE = timedelta(minutes=2)
"""So close to the window's ends it is uncertain whether the provider should have shown a record."""
_LIMITS = HttpLimits(retries=1)


class Spacivox(BaseSource[SpacivoxSettings]):
    """Reads the records of the last `lookback`: the newest at each poll, older ones less and less often.

    A record's timestamp is assumed to be the time of its creation, so a cursor that only moves forward would miss every
    later state. Instead, the same window is read again, and the ledger compares by id. For each listing, the cursor
    keeps the low watermark before which all is done, and when each slice was last read whole. After an outage the
    window reaches back to the low watermark.

    A slice that fails does not stop the others, and is read again. After requests without an answer, the newest slice
    is asked for before the server counts as down. After a poll that ended with HTTP 429, the next poll begins at the
    other end.
    """

    def __init__(self, name: str, settings: SpacivoxSettings, clock: Clock) -> None:
        super().__init__(name, settings, clock, limits=_LIMITS)
        self.retention = settings.catch_up + settings.lookback + _DAY_SECONDS
        self.backfill_step = settings.slice
        self._size = timedelta(seconds=settings.slice)
        self._lookback = timedelta(seconds=settings.lookback)
        self._overlap = timedelta(seconds=settings.overlap)
        self._listings = list(listings(settings))
        self._spans = {listing.name: AdaptiveSpan(self._size) for listing in self._listings}
        self._clock_lead = timedelta(0)
        self._newest_first = False

    def fingerprint(self) -> str:
        """Return where the API is: each customer has a host, whose tokens are all of one account."""
        return str(self.client.origin)

    async def recognizes(self, fingerprint: str, cursor: Mapping[str, str]) -> bool:
        """Return False: another host is another customer's."""
        del fingerprint, cursor
        return False

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Read every slice that is due, as a rule the oldest first; raises if none of them could be read."""
        del watched
        sweep = self._begin_sweep()
        for listing in self._listings:
            try:
                async for page in self._poll(listing, cursor, sweep):
                    yield page
            except (Unauthorized, NotFound) as error:
                sweep.on_failure(listing.name, error)
            except Throttled:
                # If one slice always gets this answer, those behind it would otherwise never be read.
                self._newest_first = not self._newest_first
                raise
        self._newest_first = False
        sweep.end()

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Read all records of a past range once, the oldest first, and leave the cursor alone."""
        sweep = self._begin_sweep()
        whole = (end - start) * len(self._listings)
        for number, listing in enumerate(self._listings):
            for part in slices(start, end, self._size):
                progress = ((end - start) * number + (part.start - start)) / whole
                try:
                    async for page in self._pages(listing, part, None, sweep):
                        yield replace(page, progress=progress)
                except LeaseLost:
                    raise
                except BridgeError as error:
                    sweep.on_failure(f"{listing.name} from {vendor_time(part.start)}", error)
        sweep.end()

    def _begin_sweep(self) -> RecordSweep:
        sweep = RecordSweep()
        self.problems = sweep.problems
        return sweep

    async def _poll(self, listing: RecordListing, cursor: Mapping[str, str], sweep: RecordSweep) -> AsyncIterator[Page]:
        now = self.clock.now()
        progress, changes = self._resume(listing, cursor, now)
        first_polled, first_changes = listing.keys.first_poll(cursor, progress, now)
        changes |= first_changes
        self._spans[listing.name].begin()
        sweep.begin()
        parts = self._due(progress, now)
        while parts:
            part, after = parts.pop(-1 if self._newest_first or sweep.looks_down else 0)
            started = self.clock.now()
            last: Page | None = None
            backlog_until = None if part.grid in progress.read else first_polled
            try:
                async for page in self._pages(listing, part, after, sweep, backlog_until):
                    if last is not None:
                        yield last
                    last = page
            except (LeaseLost, Unauthorized, NotFound):
                raise
            except BridgeError as error:
                if last is not None:
                    yield last
                sweep.on_failure(f"{listing.name} from {vendor_time(part.start)}", error)
            else:
                progress.read[part.grid] = started
                yield replace(
                    last or Page((), by=started), cursor=changes | listing.keys.moved(progress, part, self._lookback)
                )
                changes = {}

    def _due(self, progress: Progress, now: datetime) -> list[tuple[Slice, datetime | None]]:
        until = now + _READ_AHEAD + self._clock_lead
        return due_slices(progress, until, self._size, now, self.settings.interval, self.settings.reread_every)

    def _resume(
        self, listing: RecordListing, cursor: Mapping[str, str], now: datetime
    ) -> tuple[Progress, dict[str, str | None]]:
        oldest = now - max(timedelta(seconds=self.settings.catch_up), self._lookback)
        progress, stale = listing.keys.load(cursor, now, self._lookback)
        if progress.low_watermark < oldest:
            log.warning(
                "source.outage_too_long",
                source=self.name,
                listing=listing.name,
                since=vendor_time(progress.low_watermark),
                consequence=f"records before {vendor_time(oldest)} are not read; see catch_up, or backfill them",
            )
            stale += [listing.keys.read(grid) for grid in progress.cut(oldest, self._size)]
        return progress, dict.fromkeys(stale)

    async def _pages(
        self,
        listing: RecordListing,
        part: Slice,
        after: datetime | None,
        sweep: RecordSweep,
        backlog_until: datetime | None = None,
    ) -> AsyncIterator[Page]:
        """Read one slice whole; records up to `backlog_until`, the first poll, are its backlog."""
        async for answer in self._answers(listing, part):
            observations = list(sweep.news(listing, records_of(answer)))
            for backlog, run in split_backlog(observations, backlog_until):
                for start in range(0, max(1, len(run)), _PAGE_RECORDS):
                    yield Page(run[start : start + _PAGE_RECORDS], answer.at, after, backlog=backlog)
        sweep.answered = True

    async def _answers(self, listing: RecordListing, part: Slice) -> AsyncIterator[Response]:
        """Fetch a slice with the largest span that the provider accepted last time, shrinking on refusal."""
        adaptive = self._spans[listing.name]
        position = part.start
        while position < part.end:
            span = min(adaptive.span, part.end - position)
            try:
                answer = await self._ask(listing, position - self._overlap, position + span + self._overlap)
            except (LeaseLost, Throttled):
                raise  # that says nothing about the span, which the next poll tries again
            except BridgeError as error:
                smaller = smaller_span(error, span)
                if smaller is None:
                    adaptive.on_other_failure()
                    raise final_error(error) from None
                adaptive.on_too_large(span, smaller)
                await self._honour_retry_after(error)
            else:
                adaptive.on_success()
                yield answer
                position += span

    async def _honour_retry_after(self, error: BridgeError) -> None:
        """Wait as long as the provider asks; raises `error` if that is too long to wait within a poll."""
        wait = (error.retry_after if isinstance(error, ProviderError) else None) or 0.0
        if wait > _MAX_RETRY_WAIT_SECONDS:
            raise error
        if wait:
            await self.clock.sleep(wait)

    async def _ask(self, listing: RecordListing, start: datetime, end: datetime) -> Response:
        params = {"start": vendor_time(start), "end": vendor_time(end), **listing.params}
        answer = await self.client.get(listing.record.path, params)
        self._clock_lead = _clock_lead(answer)
        return answer

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        """Yield the paths of the sorts of records that are read; see `bridge.protocols.source.Reconcilable`."""
        del cursor, watched, everything
        for path in dict.fromkeys(listing.record.path for listing in self._listings):
            yield path

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        """Say that the window must be read whole, because the provider counts nothing; costs no request.

        Whether a record is in the window depends on its last timestamp, not on its id.
        """
        del cursor, ask
        listing = next((listing for listing in self._listings if listing.record.path == group), None)
        if listing is None:
            return None
        now = self.clock.now()
        return GroupCounts(
            group,
            now,
            listing.kind,
            lambda name: f"{group}/{quote(name, safe='')}",
            needs_full_read=True,
            expects=partial(self._expects, listing.sort, now),
            remarks=(f"the provider keeps no counts; the last {format_duration(self.settings.lookback)} were read",),
        )

    def _expects(self, sort: str, now: datetime, resource: str, data: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return scope and key of a record of our teams that lies within the window, well away from its edges."""
        when = parsing.time(data.get("timestamp"))
        is_within = when is not None and now - self._lookback + _WINDOW_EDGE < when < now - _WINDOW_EDGE
        if not is_within or not self._is_ours(data.get("team")):
            return None
        key = unquote(resource.rpartition("/")[2])
        return scope_of(sort, key, data["timestamp"]), key

    def _is_ours(self, team: Any) -> bool:
        teams = {str(listing.params["team"]) for listing in self._listings if listing.params}
        return not teams or str(team) in teams

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        """Read all records of the last `lookback`; see `bridge.protocols.source.Reconcilable`."""
        del cursor
        now = self.clock.now()
        for listing in self._listings:
            if listing.record.path != group:
                continue
            sweep = RecordSweep()
            for part in slices(now - self._lookback, now + _READ_AHEAD, self._size):
                async for page in self._pages(listing, part, None, sweep):
                    yield page

    def resource(self, text: str) -> str:
        """Raise `ValueError`: the source follows all records of the window by itself."""
        raise ValueError(
            f"{text}: nothing to name, a spacivox source follows every record for "
            f"{format_duration(self.settings.lookback)} by itself"
        )

    async def probe(self) -> Probe:
        """Ask for the last minute of each listing."""
        now = self.clock.now()
        count = 0
        for listing in self._listings:
            count += len(records_of(await self._ask(listing, now - SMALLEST_SPAN, now)))
        names = ", ".join(listing.name for listing in self._listings)
        requests = self._requests_per_day()
        summary = (
            f"{self.client.origin.host} answers for {names} ({count} in the last minute); "
            f"following {format_duration(self.settings.lookback)} costs about {requests:.0f} requests a day"
        )
        return Probe(summary, requests)

    def _requests_per_day(self) -> float:
        settings = self.settings
        older = (
            _DAY_SECONDS / period((index + 0.5) * settings.slice, settings.interval, settings.reread_every)
            for index in range(math.ceil(settings.lookback / settings.slice))
        )
        return len(self._listings) * (_DAY_SECONDS / settings.interval + sum(older))


def _clock_lead(answer: Response) -> timedelta:
    """Return by how much the provider's clock is ahead of ours; zero if it is not, or gives no usable time."""
    theirs = http_date(answer.headers.get("Date"))
    lead = timedelta(0) if theirs is None else theirs - answer.at
    return lead if timedelta(0) < lead <= _MAX_CLOCK_LEAD else timedelta(0)
