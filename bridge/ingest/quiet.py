"""Publishes that a source's provider has said nothing new for too long, and that it speaks again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from bridge.domain.catalogue import SourceActive, SourceData, SourceEvent, SourceQuiet, internal_event
from bridge.domain.clock import Clock
from bridge.domain.event import WireEvent
from bridge.domain.expect import ExpectSettings
from bridge.domain.settings import format_duration
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.ingest.decide import RecordedTimes
from bridge.ingest.expectations import ACTIVITY, QUIET
from bridge.protocols.ledger import Commit, Lease, Ledger

log = structlog.get_logger()

_AHEAD = timedelta(minutes=1)
"""A time that lies further ahead was written by a clock that was wrong."""


class QuietWatch:
    """Looks after each good poll whether it is too long since the last event of a source was recorded.

    A good poll shows what happened before it, also while polls failed or no process ran: only then is silence known to
    be the provider's. The time counts from the last event, or from the moment at which the window opened. What was
    published stands in the source's cursor, so it is published once, whatever is killed.
    """

    def __init__(
        self,
        name: str,
        uri: str,
        ledger: Ledger,
        clock: Clock,
        expect: ExpectSettings,
        times: RecordedTimes,
        *,
        committed: Callable[[int, Sequence[WireEvent]], None] = lambda _, __: None,
        shown: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Prepare; `shown` hears after each good poll whether the source is quiet."""
        self._name = name
        self._uri = uri
        self._ledger = ledger
        self._clock = clock
        self._expect = expect
        self._times = times
        self._committed = committed
        self._shown = shown
        self._activity: datetime | None = None
        self._quiet: datetime | None = None
        self._is_read = False

    async def after_poll(self, lease: Lease, *, has_news: bool) -> None:
        """Look whether it is time; call this after each poll that went well. Raises `LeaseLost` and `Unavailable`."""
        now = truncate_to_millis(self._clock.now())
        if has_news or not self._is_read:
            await self._read()
        if self._activity is None or self._activity > now + _AHEAD:
            await self._ledger.commit(lease, Commit(self._name, cursor={ACTIVITY: rfc3339(now)}))
            self._activity = now
        if self._quiet is not None and self._activity > self._quiet:
            await self._publish(lease, SourceActive, self._quiet, None)
        elif self._quiet is None and self._is_due(now):
            await self._publish(lease, SourceQuiet, self._activity, self._reason())
        self._shown(self._quiet is not None)

    async def _read(self) -> None:
        cursor = await self._ledger.cursor(self._name)
        self._activity = datetime.fromisoformat(cursor[ACTIVITY]) if ACTIVITY in cursor else None
        self._quiet = datetime.fromisoformat(cursor[QUIET]) if QUIET in cursor else None
        self._is_read = True

    def _is_due(self, now: datetime) -> bool:
        within, window = self._expect.activity_within, self._expect.during
        if self._activity is None or within is None:
            return False
        opened = None if window is None else window.opened(now)
        if window is not None and opened is None:
            return False
        since = self._activity if opened is None else max(self._activity, opened)
        return now - since >= timedelta(seconds=within)

    def _reason(self) -> str:
        during = "" if self._expect.during is None else f", which is expected {self._expect.during}"
        return f"nothing new for {format_duration(self._expect.activity_within or 0.0)}{during}"

    async def _publish(self, lease: Lease, cls: type[SourceEvent], since: datetime, reason: str | None) -> None:
        is_quiet = cls is SourceQuiet
        event = internal_event(
            cls,
            SourceData,
            source=self._uri,
            subject=f"/sources/{self._name}",
            occurrence=rfc3339(since),
            now=self._times.next(),
            after=since,
            previous=None if is_quiet else "quiet",
            since=since,
            reason=reason,
        )
        wires = [event.to_wire()]
        cursor = {QUIET: rfc3339(since) if is_quiet else None}
        self._committed(await self._ledger.commit(lease, Commit(self._name, events=wires, cursor=cursor)), wires)
        self._quiet = since if is_quiet else None
        if is_quiet:
            log.warning(
                "source.quiet", source=self._name, since=rfc3339(since), reason=reason,
                consequence="SourceQuiet is published; the polls go well and go on",
            )  # fmt: skip
        else:
            log.info("source.active", source=self._name, consequence="SourceActive is published")
