"""The audit of one journal for one sink, which goes on where the one before ended."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.domain import topics
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position
from bridge.domain.event_view import EventView
from bridge.domain.own_news import is_about
from bridge.protocols.deliveries import RELAY_SINK, DeliveryStore, NewDelivery
from bridge.protocols.journal import journal_batches
from bridge.protocols.ledger import Ledger
from bridge.protocols.sink import SinkSettings

_BATCH_EVENTS = 1000
_PROBED_EVENTS = 40
"""Events of a queue that one audit asks for at its head, and as many further on; more if some of them have arrived."""


@dataclass(slots=True)
class AuditResult:
    """What an audit of one sink's books found, for one source or for all."""

    missing: int = 0
    """Events that the sink should have and its books do not know: still in its queue, or lost there."""
    offered: int = 0
    """How many of them count as lost and were given to the delivery store, due at once."""
    filtered: int = 0
    """How many that count as lost the sink's filter did not select: they were noted as such."""
    arrived: int = 0
    """The highest number among the audited events that the sink's books know."""


@dataclass(slots=True)
class AuditProgress:
    """How far the audits of one sink have come in one journal."""

    complete: int
    """The number up to which the store knows that nothing is missing."""
    read: int
    """The number up to which the journal was read."""
    missing: array[int] = field(default_factory=lambda: array("Q"))
    """The numbers up to there, in ascending order, that the sink should have and its books did not know."""
    arrived: int = 0
    """The highest number that the books know."""
    probed: int = 0
    """How many of the missing ones stand before the next probe."""

    @classmethod
    def after(cls, low_watermark: int) -> AuditProgress:
        """Begin behind what is complete."""
        return cls(low_watermark, low_watermark)

    def note(self, start: int, batch: Sequence[int], still: Sequence[int]) -> None:
        """Note that of the missing ones from `start` on, `batch`, only `still` are."""
        self.missing[start : start + len(batch)] = array("Q", still)
        self.arrived = max({self.arrived, *batch} - {*still})


class JournalAudit:
    """One look at one journal for one sink. Raises `Unavailable`; what was looked at before that is kept."""

    def __init__(
        self,
        ledger: Ledger,
        deliveries: DeliveryStore,
        clock: Clock,
        sink: str,
        settings: SinkSettings,
        source: str,
        progress: AuditProgress,
        *,
        pause: float = 0.0,
    ) -> None:
        """Prepare; `pause` is for how many seconds nothing is asked between two batches."""
        self._ledger = ledger
        self._deliveries = deliveries
        self._clock = clock
        self._sink = sink
        self._settings = settings
        self._source = source
        self._progress = progress
        self._pause = pause

    async def run(self, upto: int, overdue: float) -> AuditResult:
        """Look at what is new up to `upto` and whether something has arrived; offer what is missing below `overdue`."""
        progress = self._progress
        old = len(progress.missing)
        await self._read(upto)
        await self._probe_head(old)
        await self._probe_further_on()
        result = AuditResult(missing=len(progress.missing), arrived=progress.arrived)
        if progress.missing and progress.missing[0] < overdue:
            await self._offer_overdue(overdue, result)
        complete = progress.missing[0] - 1 if progress.missing else progress.read
        if complete > progress.complete:
            await self._deliveries.raise_low_watermark(self._sink, self._source, complete)
            progress.complete = complete
        return result

    async def _read(self, upto: int) -> None:
        """Read what was confirmed since the audit before."""
        progress = self._progress
        if progress.read >= upto:
            return
        async for entries in journal_batches(self._ledger, self._source, after=progress.read, upto=upto):
            wanted = [
                entry.position.seq for entry in entries if topics.matches(self._settings.topics, entry.event.topic)
            ]
            missing = await self._missing(wanted)
            progress.missing.extend(missing)
            progress.arrived = max({progress.arrived, *wanted} - {*missing})
            progress.read = entries[-1].position.seq
            await self._rest()

    async def _probe_head(self, old: int) -> None:
        """Ask for the first of the `old` missing ones, and go on as long as some of them have arrived."""
        start, size = 0, _PROBED_EVENTS
        while start < old:
            batch = self._progress.missing[start : min(start + size, old)]
            still = await self._deliveries.unaccounted(self._sink, self._source, batch)
            self._progress.note(start, batch, still)
            if len(still) == len(batch):
                return
            old -= len(batch) - len(still)
            start, size = start + len(still), _BATCH_EVENTS
            await self._rest()

    async def _probe_further_on(self) -> None:
        """Ask for a few others: an event may have arrived out of turn."""
        progress = self._progress
        start = progress.probed if progress.probed < len(progress.missing) else 0
        batch = progress.missing[start : start + _PROBED_EVENTS]
        if len(progress.missing) > _PROBED_EVENTS:
            still = await self._deliveries.unaccounted(self._sink, self._source, batch)
            progress.note(start, batch, still)
            progress.probed = start + len(still)

    async def _offer_overdue(self, overdue: float, result: AuditResult) -> None:
        """Give what is still missing below `overdue` to the delivery store, or note that the filter leaves it out."""
        progress = self._progress
        while progress.missing and progress.missing[0] < overdue:
            end = len(progress.missing) if overdue > progress.missing[-1] else bisect_left(progress.missing, overdue)
            batch = progress.missing[: min(end, _BATCH_EVENTS)]
            lost = await self._missing(batch)
            journalled = await self._ledger.entries([Position(self._source, seq) for seq in lost])
            await self._settle([entry for entry in journalled if entry is not None], result)
            # What is neither here nor in the journal any more is nobody's: it cannot be sent.
            progress.note(0, batch, ())
            await self._rest()

    async def _settle(self, lost: Sequence[JournalEntry], result: AuditResult) -> None:
        wanted = [
            entry
            for entry in lost
            if self._settings.filter_selects(entry.event) and not is_about(entry.event, self._sink)
        ]
        result.offered += await self._offer(wanted)
        kept = {entry.position for entry in wanted}
        if left_out := [entry.position for entry in lost if entry.position not in kept]:
            result.filtered += await self._deliveries.filter_out(self._sink, left_out)

    async def _offer(self, lost: Sequence[JournalEntry]) -> int:
        if not lost:
            return 0
        ordered = self._settings.ordered
        arrivals = [NewDelivery(entry.position, EventView.of(entry).partition if ordered else None) for entry in lost]
        return await self._deliveries.enqueue(self._sink, arrivals, self._clock.epoch())

    async def _missing(self, seqs: Sequence[int]) -> Sequence[int]:
        if not seqs:
            return ()
        missing = await self._deliveries.unaccounted(self._sink, self._source, seqs)
        # A dead letter of the relay is not lost: the broker never had it.
        return await self._deliveries.unaccounted(RELAY_SINK, self._source, missing) if missing else ()

    async def _rest(self) -> None:
        if self._pause:
            await self._clock.sleep(self._pause)
