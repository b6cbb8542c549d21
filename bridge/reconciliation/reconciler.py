"""The whole books of one source: provider, ledger, events, the broker's confirmations, and what each sink settled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from pydantic_core import from_json

from bridge.domain import topics
from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent
from bridge.domain.event import JournalEntry
from bridge.ingest.intake import INTERNAL_PREFIX
from bridge.protocols.deliveries import DeliveryCounts, DeliveryStore
from bridge.protocols.ledger import Ledger
from bridge.protocols.source import Reconcilable, Source
from bridge.reconciliation.comparison import CompareOptions, Comparison, Difference, Report, SinkBook

_BATCH_ENTRIES = 1000
_ASK_AGAIN_SECONDS = 0.5


class Reconciler:
    """Compares the books of one source and names what differs; nothing is changed by it.

    `published` says that whatever the ledger knows became an event: not so where a first start recorded a baseline.
    """

    def __init__(self, name: str, source: Source, ledger: Ledger, clock: Clock, *, published: bool = True) -> None:
        self._name = name
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._published = published

    async def compare(self, wanted: CompareOptions, on_group: Callable[[str], None] = lambda _: None) -> Report:
        """Compare provider, ledger and events; `told` hears of each group as it begins.

        Raises `Permanent` for a source whose provider cannot be asked once more, `Unauthorized` and `Unavailable`; a
        group that fails otherwise is in the report and does not stop the others.
        """
        source = self._source
        if not isinstance(source, Reconcilable):
            raise Permanent(f"source {self._name}: there is nothing to compare, its type cannot ask its provider again")
        cursor = await self._ledger.cursor(self._name)
        own = {key: value for key, value in cursor.items() if not key.startswith(INTERNAL_PREFIX)}
        comparison = Comparison(self._name, source, self._ledger, self._clock, wanted, published=self._published)
        return await comparison.run(own, await self._ledger.watched(self._name), on_group)

    async def settle(
        self, report: Report, wanted: CompareOptions, deliveries: DeliveryStore, sinks: Mapping[str, Sequence[str]]
    ) -> None:
        """Add to a report what the broker has not confirmed, and what the `sinks` (with their topics) never settled.

        Only what was committed by the time of the report counts, and what is on its way gets `max_wait` to arrive.
        """
        upto = report.journal.committed
        missing = {sink: await self._unaccounted(deliveries, sink, topics, upto) for sink, topics in sinks.items()}
        deadline = self._clock.monotonic() + wanted.max_wait
        while True:
            journal = await self._ledger.journal(self._name)
            for sink, entries in missing.items():
                missing[sink] = await self._still(deliveries, sink, entries)
            under_way = journal.confirmed < upto or any(missing.values())
            if not under_way or self._clock.monotonic() >= deadline:
                break
            await self._clock.sleep(_ASK_AGAIN_SECONDS)
        report.journal = journal
        async for batch in self._entries(journal.confirmed, upto):
            report.differences += _late(batch, "unconfirmed", wanted)
        for sink, entries in missing.items():
            lost = [entry for entry in entries if entry.position.seq <= journal.confirmed]
            report.differences += _late(lost, "undelivered", wanted, sink)
            report.sinks[sink] = SinkBook((await deliveries.counts(sink)).get(self._name, DeliveryCounts()), len(lost))

    async def _unaccounted(
        self, deliveries: DeliveryStore, sink: str, patterns: Sequence[str], upto: int
    ) -> list[JournalEntry]:
        unaccounted: list[JournalEntry] = []
        async for batch in self._entries(await deliveries.low_watermark(sink, self._name), upto):
            subscribed = [entry for entry in batch if topics.matches(patterns, entry.event.topic)]
            unaccounted += await self._still(deliveries, sink, subscribed)
        return unaccounted

    async def _still(self, deliveries: DeliveryStore, sink: str, entries: Sequence[JournalEntry]) -> list[JournalEntry]:
        if not entries:
            return []
        unknown = set(await deliveries.unaccounted(sink, self._name, [entry.position.seq for entry in entries]))
        return [entry for entry in entries if entry.position.seq in unknown]

    async def _entries(self, after: int, upto: int) -> AsyncIterator[list[JournalEntry]]:
        """Yield the journal between two marks in batches."""
        while after < upto:
            batch = [
                batch
                for batch in await self._ledger.read(self._name, after, _BATCH_ENTRIES)
                if batch.position.seq <= upto
            ]
            if not batch:
                return
            yield batch
            after = batch[-1].position.seq


def _late(
    entries: Sequence[JournalEntry], what: str, wanted: CompareOptions, sink: str | None = None
) -> list[Difference]:
    differences = []
    for entry in entries:
        body = from_json(entry.event.body)
        subject, status = body["subject"], body["data"]["status"]
        if wanted.includes(subject):
            differences.append(Difference(subject, str(entry.position), what, event=status, sink=sink))
    return differences
