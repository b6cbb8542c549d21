"""The shape `window`: a trailing stretch of time, read in slices again and again; the ledger compares by id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.http import parsing
from bridge.http.errors import NotFound, ProviderError, Throttled
from bridge.http.headers import http_date
from bridge.http.response import Response
from bridge.protocols.source import Page
from bridge.providers import times
from bridge.providers.models import WindowSpec
from bridge.sources.rest.errors import TooOld
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.requests import ItemList, ItemPage, KnownCount
from bridge.sources.rest.sweep import Overlap, PollSweep, backlog_runs
from bridge.sources.rest.unchanged import AnswerMemory, SliceReading
from bridge.sources.shapes.span import AdaptiveSpan, final_error, smaller_span
from bridge.sources.shapes.window import CursorKeys, Progress, Slice, due_slices, vendor_time

log = structlog.get_logger()

READ_AHEAD = timedelta(minutes=5)
"""How far into the future records are read; further if the provider's clock is seen to be ahead of ours."""
_MAX_CLOCK_LEAD = timedelta(days=1)
_COARSE = timedelta(seconds=1)
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
        grain = max(times.grain(spec.start.format), times.grain(spec.end.format))
        self.grain = grain if grain >= _COARSE else timedelta(0)
        """By how much a written end may be earlier than what is meant; milliseconds are made up for by `overlap`."""
        self.overlap = span("overlap")
        self.retention = None if spec.retention is None else timedelta(seconds=spec.retention) - _RETENTION_MARGIN


@dataclass(frozen=True, slots=True)
class WindowNames:
    """What a window is called."""

    source: str
    listing: str = "list"
    """The stem of its entries in the cursor."""
    records: str = "records"
    """Its records, in problems."""
    undated_is_old: bool = True
    """Whether a record without a time of creation may be from before the first poll."""
    only: Mapping[str, str] = field(default_factory=dict)
    """The fields of events, and their values, of all records that are asked for."""

    def since(self, start: datetime) -> str:
        """Return what a problem of a slice begins with."""
        return f"{self.records} from {vendor_time(start)}"


class TrailingWindow:
    """Reads the slices of the window that are due: the newest at each poll, older ones less and less often."""

    def __init__(
        self, spec: WindowSpec, items: ItemList, reader: ItemReader, clock: Clock, settings: Any, names: WindowNames,
        *, remembers: bool,
    ) -> None:  # fmt: skip
        self.names = names
        self.times = WindowTimes(spec, settings)
        self.items = items
        self.reader = reader
        self._clock = clock
        self._keys = CursorKeys(names.listing, self.times.size)
        self._span = AdaptiveSpan(self.times.size)
        self._memory = AnswerMemory() if remembers else None
        """Without one, each answer is read whole."""
        self._separates_occurrences = reader.separates_occurrences
        created = reader.field_of(reader.created_path)
        self._created, self._dated_by = created, created if spec.by is None else reader.field_of(spec.by)
        """The fields of events with the time of creation, and with the time by which the window finds a record."""
        self._label = "records" if names.records == "records" else f"records of {names.records}"
        self._start, self._end = spec.start.param, spec.end.param
        self._write_start = times.writer(spec.start.format, spec.zone)
        self._write_end = times.writer(spec.end.format, spec.zone)
        self._clock_lead = timedelta(0)

    async def pages(
        self, cursor: Mapping[str, str], sweep: PollSweep, *, newest_first: bool = False
    ) -> AsyncIterator[Page]:
        """Read every slice that is due, as a rule the oldest first."""
        now = self._clock.now()
        progress, changes = self._resume(cursor, now)
        first_polled, first_changes = self._keys.first_poll(cursor, progress, now)
        changes |= first_changes
        self._span.begin()
        if self._memory is not None:
            self._memory.keep(progress.read)
        overlap = Overlap()
        parts = self._due(progress, now)
        while parts:
            part, after = parts.pop(-1 if newest_first or sweep.looks_down else 0)
            started = self._clock.now()
            backlog_until = None if part.grid in progress.read else first_polled
            reading = self._begin(part, progress, now)
            last: Page | None = None
            try:
                async for page in self.slice_pages(part, after, sweep, overlap, backlog_until, reading):
                    if last is not None:
                        yield last
                    last = page
            except (LeaseLost, Unauthorized, NotFound):
                raise
            except BridgeError as error:
                if last is not None:
                    yield last
                sweep.on_failure(self.names.since(part.start), error)
            else:
                progress.read[part.grid] = started
                if self._memory is not None and reading is not None:
                    self._memory.end(part.grid, started, reading)
                yield replace(
                    last or Page((), by=started), cursor=changes | self._keys.moved(progress, part, self.times.lookback)
                )
                changes = {}

    def _begin(self, part: Slice, progress: Progress, now: datetime) -> SliceReading | None:
        return None if self._memory is None else self._memory.begin(part.grid, progress.read.get(part.grid), now)

    def _resume(self, cursor: Mapping[str, str], now: datetime) -> tuple[Progress, dict[str, str | None]]:
        own = self.times
        reach = max(own.catch_up, own.lookback)
        reach = reach if own.retention is None else min(reach, own.retention)
        oldest = now - reach
        progress, stale = self._keys.load(cursor, now, min(own.lookback, reach))
        if progress.low_watermark < oldest:
            log.warning(
                "source.outage_too_long",
                source=self.names.source, listing=self.names.listing, since=vendor_time(progress.low_watermark),
                consequence=f"records before {vendor_time(oldest)} are not read; see catch_up, or backfill them",
            )  # fmt: skip
            stale += [self._keys.read(grid) for grid in progress.cut(oldest, own.size)]
        return progress, dict.fromkeys(stale)

    def _due(self, progress: Progress, now: datetime) -> list[tuple[Slice, datetime | None]]:
        own = self.times
        until = now + max(READ_AHEAD, own.grain) + self._clock_lead
        return due_slices(progress, until, own.size, now, own.interval, own.reread_every)

    async def slice_pages(
        self, part: Slice, after: datetime | None, sweep: PollSweep, overlap: Overlap,
        backlog_until: datetime | None = None, reading: SliceReading | None = None,
    ) -> AsyncIterator[Page]:  # fmt: skip
        """Read one slice whole; what was created up to `backlog_until`, the first poll, is its backlog."""
        async for page in self._answers(part, None if reading is None else reading.count):
            self._clock_lead = _clock_lead(page.answer)
            if page.unchanged is not None and reading is not None:
                reading.keep(page.answer)
                yield Page((), page.answer.at, after, unchanged=page.unchanged)
                continue
            observations = sweep.observe(self.reader, page.items, self._label)
            is_readable = len(observations) == len(page.items)
            if not self._separates_occurrences:
                observations = overlap.without_known(observations)
            if reading is not None:
                reading.is_consistent &= not overlap.has_moved
                if is_readable:
                    reading.note(page.answer, overlap.last, len(page.items))
            runs = backlog_runs(
                observations, self.reader.created, backlog_until, undated_is_old=self.names.undated_is_old
            )
            for backlog, run in runs:
                # What is known is left out of each portion, so that the portions are always the same.
                news = run if reading is None else reading.news(run)
                yield Page(news, page.answer.at, after, backlog=backlog, unchanged=len(run) - len(news))
        sweep.answered = True

    async def _answers(self, part: Slice, known: KnownCount | None = None) -> AsyncIterator[ItemPage]:
        """Fetch a slice with the largest span that the provider accepted last time, shrinking on refusal."""
        adaptive, position = self._span, part.start
        while position < part.end:
            span = min(adaptive.span, part.end - position)
            try:
                async for page in self.items.pages(self.question(position, position + span), known):
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

    def expects(self, subject: str, data: Mapping[str, Any], edge: timedelta) -> tuple[str, str] | None:
        """Return scope and key of a record that the window should show, well away from its ends; else None."""
        key, now = self.reader.key_of(subject), self._clock.now()
        when = None if self._dated_by is None else parsing.time(data.get(self._dated_by))
        is_within = when is not None and now - self.times.lookback + edge < when < now - edge
        is_ours = all(str(data.get(name)) == value for name, value in self.names.only.items())
        if key is None or not is_within or not is_ours:
            return None
        return self.reader.scope_at(key, None if self._created is None else parsing.time(data.get(self._created))), key

    def oldest(self, now: datetime) -> datetime:
        """Return the earliest moment that the provider can be asked for."""
        return datetime.min.replace(tzinfo=UTC) if self.times.retention is None else now - self.times.retention


def _clock_lead(answer: Response) -> timedelta:
    """Return by how much the provider's clock is ahead of ours; zero if it is not, or gives no usable time."""
    theirs = http_date(answer.headers.get("Date"))
    lead = timedelta(0) if theirs is None else theirs - answer.at
    return lead if timedelta(0) < lead <= _MAX_CLOCK_LEAD else timedelta(0)
