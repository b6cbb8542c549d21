"""The shape `window`: a trailing stretch of time, read in slices again and again; the ledger compares by id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.http.errors import NotFound, ProviderError, Throttled
from bridge.http.headers import http_date
from bridge.http.response import Response
from bridge.protocols.source import Page
from bridge.providers import times
from bridge.providers.models import WindowSpec
from bridge.sources.rest.errors import TooOld
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.requests import ApiClient, ItemPage
from bridge.sources.rest.sweep import PollSweep, backlog_runs
from bridge.sources.shapes.span import AdaptiveSpan, final_error, smaller_span
from bridge.sources.shapes.window import CursorKeys, Progress, Slice, due_slices, vendor_time

log = structlog.get_logger()

_READ_AHEAD = timedelta(minutes=5)
"""How far into the future records are read; further if the provider's clock is seen to be ahead of ours."""
_MAX_CLOCK_LEAD = timedelta(days=1)
_MAX_RETRY_WAIT_SECONDS = 60.0
_RETENTION_MARGIN = timedelta(minutes=10)
"""Less than `retention` is asked for, or a slow request asks for what is just gone."""


class WindowTimes:
    """The settings of a window as times."""

    def __init__(self, spec: WindowSpec, settings: Any) -> None:
        def span(name: str) -> timedelta:
            return timedelta(seconds=float(getattr(settings, name)))

        self.lookback, self.size, self.catch_up = span("lookback"), span("slice"), span("catch_up")
        self.interval, self.reread_every = float(settings.interval), span("reread_every").total_seconds()
        self.grain = max(times.grain(spec.start.format), times.grain(spec.end.format))
        self.overlap = span("overlap")
        self.retention = None if spec.retention is None else timedelta(seconds=spec.retention) - _RETENTION_MARGIN


class TrailingWindow:
    """Reads the slices of the window that are due: the newest at each poll, older ones less and less often."""

    def __init__(
        self, spec: WindowSpec, client: ApiClient, reader: ItemReader, clock: Clock, settings: Any, name: str
    ) -> None:
        self._name = name
        self.times = WindowTimes(spec, settings)
        self._client = client
        self._reader = reader
        self._clock = clock
        self._keys = CursorKeys("list", self.times.size)
        self._span = AdaptiveSpan(self.times.size)
        self._start, self._end = spec.start.param, spec.end.param
        self._write_start = times.writer(spec.start.format, spec.zone)
        self._write_end = times.writer(spec.end.format, spec.zone)
        self._clock_lead = timedelta(0)
        self._newest_first = False

    async def pages(self, cursor: Mapping[str, str], sweep: PollSweep) -> AsyncIterator[Page]:
        """Read every slice that is due, as a rule the oldest first; after a poll that ended with 429, the newest."""
        try:
            async for page in self._poll(cursor, sweep):
                yield page
        except Throttled:
            # If one slice always gets this answer, those behind it would otherwise never be read.
            self._newest_first = not self._newest_first
            raise
        self._newest_first = False

    async def _poll(self, cursor: Mapping[str, str], sweep: PollSweep) -> AsyncIterator[Page]:
        now = self._clock.now()
        progress, changes = self._resume(cursor, now)
        first_polled, first_changes = self._keys.first_poll(cursor, progress, now)
        changes |= first_changes
        self._span.begin()
        parts = self._due(progress, now)
        while parts:
            part, after = parts.pop(-1 if self._newest_first or sweep.looks_down else 0)
            started = self._clock.now()
            backlog_until = None if part.grid in progress.read else first_polled
            last: Page | None = None
            try:
                async for page in self.slice_pages(part, after, sweep, backlog_until):
                    if last is not None:
                        yield last
                    last = page
            except (LeaseLost, Unauthorized, NotFound):
                raise
            except BridgeError as error:
                if last is not None:
                    yield last
                sweep.on_failure(f"records from {vendor_time(part.start)}", error)
            else:
                progress.read[part.grid] = started
                yield replace(
                    last or Page((), by=started), cursor=changes | self._keys.moved(progress, part, self.times.lookback)
                )
                changes = {}

    def _resume(self, cursor: Mapping[str, str], now: datetime) -> tuple[Progress, dict[str, str | None]]:
        own = self.times
        reach = max(own.catch_up, own.lookback)
        reach = reach if own.retention is None else min(reach, own.retention)
        oldest = now - reach
        progress, stale = self._keys.load(cursor, now, min(own.lookback, reach))
        if progress.low_watermark < oldest:
            log.warning(
                "source.outage_too_long",
                source=self._name, listing="list", since=vendor_time(progress.low_watermark),
                consequence=f"records before {vendor_time(oldest)} are not read; see catch_up, or backfill them",
            )  # fmt: skip
            stale += [self._keys.read(grid) for grid in progress.cut(oldest, own.size)]
        return progress, dict.fromkeys(stale)

    def _due(self, progress: Progress, now: datetime) -> list[tuple[Slice, datetime | None]]:
        own = self.times
        until = now + max(_READ_AHEAD, own.grain) + self._clock_lead
        return due_slices(progress, until, own.size, now, own.interval, own.reread_every)

    async def slice_pages(
        self, part: Slice, after: datetime | None, sweep: PollSweep, backlog_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Read one slice whole; what was created up to `backlog_until`, the first poll, is its backlog."""
        async for page in self._answers(part):
            self._clock_lead = _clock_lead(page.answer)
            observations = sweep.observe(page.items)
            for backlog, run in backlog_runs(observations, self._reader.created, backlog_until):
                yield Page(run, page.answer.at, after, backlog=backlog)
        sweep.answered = True

    async def _answers(self, part: Slice) -> AsyncIterator[ItemPage]:
        """Fetch a slice with the largest span that the provider accepted last time, shrinking on refusal."""
        adaptive, position = self._span, part.start
        while position < part.end:
            span = min(adaptive.span, part.end - position)
            try:
                async for page in self._client.pages(self.question(position, position + span)):
                    yield page
            except (LeaseLost, Throttled):
                raise  # that says nothing about the span, which the next poll tries again
            except TooOld:
                position += span  # what is so old is gone at the provider, and no question brings it back
            except BridgeError as error:
                await self._shrink(error, span)
            else:
                adaptive.on_success()
                position += span

    async def _shrink(self, error: BridgeError, span: timedelta) -> None:
        """Ask for less the next time; raises if that does not help."""
        smaller = smaller_span(error, span)
        if smaller is None:
            self._span.on_other_failure()
            raise final_error(error) from None
        self._span.on_too_large(span, smaller)
        wait = (error.retry_after if isinstance(error, ProviderError) else None) or 0.0
        if wait > _MAX_RETRY_WAIT_SECONDS:
            raise error
        if wait:
            await self._clock.sleep(wait)

    def question(self, start: datetime, end: datetime) -> dict[str, str | int | None]:
        """Return the parameters for a stretch of time, widened to what their formats can say."""
        own = self.times
        # A format that says only days is cut to the day's beginning, so the end moves to the day after.
        return {
            self._start: self._write_start(start - own.overlap),
            self._end: self._write_end(end + own.overlap + own.grain),
        }

    def oldest(self, now: datetime) -> datetime:
        """Return the earliest moment that the provider can be asked for."""
        return datetime.min.replace(tzinfo=UTC) if self.times.retention is None else now - self.times.retention


def _clock_lead(answer: Response) -> timedelta:
    """Return by how much the provider's clock is ahead of ours; zero if it is not, or gives no usable time."""
    theirs = http_date(answer.headers.get("Date"))
    lead = timedelta(0) if theirs is None else theirs - answer.at
    return lead if timedelta(0) < lead <= _MAX_CLOCK_LEAD else timedelta(0)
