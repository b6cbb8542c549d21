"""The windows of a source, one after the other: polled, read for a past range, and compared with the ledger."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.domain.settings import format_duration
from bridge.http.errors import NotFound, Throttled
from bridge.protocols.source import GroupCounts, Page
from bridge.sources.rest.sweep import Overlap, PollSweep
from bridge.sources.rest.window import READ_AHEAD, TrailingWindow
from bridge.sources.shapes.window import period, slices, vendor_time

_DAY_SECONDS = 86400.0
_EDGE = timedelta(minutes=2)
"""So close to the window's ends it is uncertain whether the provider should have shown a record."""


class WindowSet:
    """Reads several windows; one that fails stops no other."""

    def __init__(self, windows: Sequence[TrailingWindow], clock: Clock) -> None:
        self.windows = windows
        self._clock = clock
        self._newest_first = False

    async def pages(self, cursor: Mapping[str, str], sweep: PollSweep) -> AsyncIterator[Page]:
        """Read what is due of each window; after a poll that ended with 429, the newest slices first."""
        for window in self.windows:
            try:
                async for page in window.pages(cursor, sweep, newest_first=self._newest_first):
                    yield page
            except (Unauthorized, NotFound) as error:
                if len(self.windows) == 1:
                    raise
                sweep.on_failure(window.names.listing, error)
            except Throttled:
                # If one slice always gets this answer, those behind it would otherwise never be read.
                self._newest_first = not self._newest_first
                raise
        self._newest_first = False

    async def between(self, start: datetime, end: datetime, sweep: PollSweep) -> AsyncIterator[Page]:
        """Read all records of a past range once, the oldest first."""
        whole = (end - start) * len(self.windows)
        for number, window in enumerate(self.windows):
            oldest = window.oldest(self._clock.now())
            if start < oldest:
                sweep.problems.append(f"records before {vendor_time(oldest)} are not kept by the provider: not read")
            overlap = Overlap()
            for part in slices(max(start, oldest), end, window.times.size):
                progress = ((end - start) * number + (part.start - start)) / whole
                try:
                    async for page in window.slice_pages(part, None, sweep, overlap):
                        yield replace(page, progress=progress)
                except LeaseLost:
                    raise
                except BridgeError as error:
                    sweep.on_failure(window.names.since(part.start), error)

    @property
    def requests_per_day(self) -> float:
        """Return what polling costs when nothing happens."""
        return sum(map(self._requests_of, self.windows))

    @staticmethod
    def _requests_of(window: TrailingWindow) -> float:
        own = window.times
        size = own.size.total_seconds()
        older = (
            _DAY_SECONDS / period((index + 0.5) * size, own.interval, own.reread_every)
            for index in range(math.ceil(own.lookback / own.size))
        )
        return _DAY_SECONDS / own.interval + sum(older)

    # --- compared with the ledger -------------------------------------------------------------------------------------

    def groups(self) -> Iterator[str]:
        """Yield the paths of the lists."""
        yield from dict.fromkeys(window.items.path for window in self.windows)

    def count(self, group: str) -> GroupCounts | None:
        """Say that a window must be read whole, because the provider counts nothing; costs no request.

        Whether a record is in the window depends on its last time, not on its id.
        """
        windows = [window for window in self.windows if window.items.path == group]
        if not windows:
            return None
        window, now = windows[0], self._clock.now()
        lookback = format_duration(window.times.lookback.total_seconds())
        return GroupCounts(
            group,
            now,
            window.reader.kind,
            window.reader.subject,
            needs_full_read=True,
            expects=partial(_expected, windows),
            remarks=(f"the provider keeps no counts; the last {lookback} were read",),
        )

    async def members(self, group: str) -> AsyncGenerator[Page, None]:
        """Read all records of the last `lookback`."""
        now = self._clock.now()
        for window in self.windows:
            if window.items.path != group:
                continue
            sweep = PollSweep()
            overlap = Overlap()
            for part in slices(now - window.times.lookback, now + READ_AHEAD, window.times.size):
                async for page in window.slice_pages(part, None, sweep, overlap):
                    yield page


def _expected(windows: Sequence[TrailingWindow], resource: str, data: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return scope and key of a record that one of the windows should show."""
    return next((place for window in windows if (place := window.expects(resource, data, _EDGE)) is not None), None)
