"""The whole books of one source: provider, ledger, events, the broker's confirmations, and each sink's deliveries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge.domain import topics
from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent
from bridge.domain.event import JournalEntry
from bridge.domain.event_view import EventView
from bridge.ingest.intake import INTERNAL_PREFIX
from bridge.protocols.deliveries import DeliveryCounts, DeliveryStore
from bridge.protocols.journal import journal_batches
from bridge.protocols.ledger import Ledger
from bridge.protocols.source import Reconcilable, Source
from bridge.reconciliation.comparison import CompareOptions, Comparison
from bridge.reconciliation.report import Difference, Report, SinkBook

_ASK_AGAIN_SECONDS = 0.5


class Reconciler:
    """Compares the books of one source and names what differs; changes nothing.

    `published` says that everything the ledger knows became an event: not so if a first start recorded a baseline.
    """

    def __init__(self, name: str, source: Source, ledger: Ledger, clock: Clock, *, published: bool = True) -> None:
        self._name = name
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._published = published

    async def compare(self, options: CompareOptions, on_group: Callable[[str], None] = lambda _: None) -> Report:
        """Compare provider, ledger and events; `on_group` is called as each group begins.

        Raises `Permanent` for a source that cannot ask its provider again, `Unauthorized` and `Unavailable`. A group
        that fails for another reason is in the report and does not stop the others.
        """
        source = self._source
        if not isinstance(source, Reconcilable):
            raise Permanent(f"source {self._name}: there is nothing to compare, its type cannot ask its provider again")
        cursor = await self._ledger.cursor(self._name)
        own = {key: value for key, value in cursor.items() if not key.startswith(INTERNAL_PREFIX)}
        comparison = Comparison(self._name, source, self._ledger, self._clock, options, published=self._published)
        return await comparison.run(own, await self._ledger.watched(self._name), on_group)

    async def settle(
        self, report: Report, options: CompareOptions, deliveries: DeliveryStore, sinks: Mapping[str, Sequence[str]]
    ) -> None:
        """Add to a report what the broker has not confirmed, and what the `sinks` (with their topics) never settled.

        Only events that were committed before the report count. Events on their way get `max_wait` to arrive.
        """
        upto = report.journal.committed
        missing = {sink: await self._unaccounted(deliveries, sink, topics, upto) for sink, topics in sinks.items()}
        deadline = self._clock.monotonic() + options.max_wait
        while True:
            journal = await self._ledger.journal(self._name)
            for sink, entries in missing.items():
                missing[sink] = await self._still_unaccounted(deliveries, sink, entries)
            under_way = journal.confirmed < upto or any(missing.values())
            if not under_way or self._clock.monotonic() >= deadline:
                break
            await self._clock.sleep(_ASK_AGAIN_SECONDS)
        report.journal = journal
        async for batch in journal_batches(self._ledger, self._name, after=journal.confirmed, upto=upto):
            report.differences += _as_differences(batch, "unconfirmed", options)
        for sink, entries in missing.items():
            lost = [entry for entry in entries if entry.position.seq <= journal.confirmed]
            report.differences += _as_differences(lost, "undelivered", options, sink)
            report.sinks[sink] = SinkBook((await deliveries.counts(sink)).get(self._name, DeliveryCounts()), len(lost))

    async def _unaccounted(
        self, deliveries: DeliveryStore, sink: str, patterns: Sequence[str], upto: int
    ) -> list[JournalEntry]:
        unaccounted: list[JournalEntry] = []
        after = await deliveries.low_watermark(sink, self._name)
        if after >= upto:
            return unaccounted
        async for batch in journal_batches(self._ledger, self._name, after=after, upto=upto):
            selected = [entry for entry in batch if topics.matches(patterns, entry.event.topic)]
            unaccounted += await self._still_unaccounted(deliveries, sink, selected)
        return unaccounted

    async def _still_unaccounted(
        self, deliveries: DeliveryStore, sink: str, entries: Sequence[JournalEntry]
    ) -> list[JournalEntry]:
        if not entries:
            return []
        seqs = set(await deliveries.unaccounted(sink, self._name, [entry.position.seq for entry in entries]))
        return [entry for entry in entries if entry.position.seq in seqs]


def _as_differences(
    entries: Sequence[JournalEntry], what: str, options: CompareOptions, sink: str | None = None
) -> list[Difference]:
    return [
        Difference(view.subject, str(view.position), what, event=view.status, sink=sink)
        for view in map(EventView.of, entries)
        if options.includes(view.subject)
    ]
