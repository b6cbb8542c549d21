"""Compares one source's books group by group: what its provider says, what the ledger knows, and the last events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, NotReady, Unauthorized, Unavailable
from bridge.domain.event_view import EventView
from bridge.domain.lifecycle import UNKNOWN
from bridge.domain.overdue import is_overdue
from bridge.protocols.journal import journal_batches
from bridge.protocols.ledger import Key, Ledger
from bridge.protocols.source import (
    ExpectedKey,
    GroupCounts,
    HasStatistics,
    Observation,
    Reconcilable,
)
from bridge.reconciliation.last_events import LastEventStatuses
from bridge.reconciliation.ledger_resource import LedgerResource, agrees, differs, path_of
from bridge.reconciliation.report import Difference, GroupBook, Report

_BATCH_RESOURCES = 1000
"""Resources that the ledger is asked for at once."""
_ASK_AGAIN_SECONDS = 0.5
_MAX_READS = 2
"""Times that a group is read if the provider lists fewer resources than it counts."""
_TRIMMED = "the journal keeps events for a limited time"
_BASELINE = "a first start recorded them as its baseline"
_DIGEST = "#"
"""Names with this first character may be digests of longer names; no path can be made of a digest."""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What a comparison includes, and how long it waits."""

    resource: str | None = None
    """Compare only this resource, or this group with everything in it."""
    deep: bool = False
    """Read every resource of every group, also if the counts agree: two opposite errors cancel out."""
    everything: bool = False
    """Include groups that no poll reads any more."""
    use_cached_counts: bool = False
    """Ask the provider only for groups whose counts, as the polls saw them, differ; do not compare the events."""
    max_wait: float = 0.0
    """How long the ledger may take to learn what the provider said. After that it counts as a difference."""

    def includes(self, resource: str) -> bool:
        """Return whether a resource is to be compared."""
        return self.resource is None or resource == self.resource or resource.startswith(f"{self.resource}/")

    def includes_group(self, group: str) -> bool:
        """Return whether a group is to be compared."""
        return self.includes(group) or (self.resource is not None and self.resource.startswith(f"{group}/"))


@dataclass(frozen=True, slots=True)
class _PendingDifference:
    """A difference that the next poll may resolve."""

    difference: Difference
    known: LedgerResource | None
    compared: str
    """The group in whose comparison it came up."""


class Comparison:
    """Compares provider, ledger and events of one source once, and changes nothing.

    The provider is read first and the ledger after it. A resource whose ledger entry the poller changes during the
    comparison is left out: a service that works is never blamed for a change that it is about to record.
    """

    def __init__(
        self, name: str, source: Reconcilable, ledger: Ledger, clock: Clock, options: CompareOptions, *, published: bool
    ) -> None:
        """Prepare; `published` says that everything the ledger knows became an event: not so with a baseline."""
        self._name = name
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._options = options
        self._published = published
        self._last_events = LastEventStatuses(ledger, name)
        self._pending: list[_PendingDifference] = []
        self._without_event = 0
        self._cursor: Mapping[str, str] = {}
        self._group = ""
        self._report = Report(name, clock.now())

    @property
    def differing(self) -> list[str]:
        """The groups in which something differs."""
        return list(dict.fromkeys(pending.compared for pending in self._pending))

    async def run(
        self,
        cursor: Mapping[str, str],
        watched: Sequence[str],
        on_group: Callable[[str], None],
        groups: Sequence[str] | None = None,
    ) -> Report:
        """Compare all groups, or `groups`; `on_group` is called as each begins. See `Reconciler.compare`."""
        report, options = self._report, self._options
        report.journal = await self._ledger.journal(self._name)
        self._cursor = cursor
        if not options.use_cached_counts:
            await self._last_events.catch_up()
        for group in await self._groups(watched) if groups is None else groups:
            on_group(group)
            self._group = group
            try:
                await self._compare(group)
            except (Unauthorized, Unavailable):
                raise
            except NotReady as error:
                report.remarks.append(f"{group}: not compared: {error}")
            except BridgeError as error:
                report.failures[group] = str(error)
        if groups is None and options.resource is None and not options.use_cached_counts:
            await self._read_statistics()
        await self._wait_for_convergence()
        report.differences += [pending.difference for pending in self._pending]
        self._note_missing_events()
        return report

    async def _read_statistics(self) -> None:
        if not isinstance(self._source, HasStatistics):
            return
        try:
            self._report.statistics += await self._source.statistics(self._cursor)
        except Unavailable:
            raise
        except BridgeError as error:
            self._report.remarks.append(f"the provider's statistics: {error}")

    async def _groups(self, watched: Sequence[str]) -> list[str]:
        options = self._options
        groups = self._source.groups(self._cursor, watched, everything=options.everything)
        included = [group async for group in groups if options.includes_group(group)]
        return list(dict.fromkeys(included)) or ([] if options.resource is None else [options.resource])

    # one group

    async def _compare(self, group: str) -> None:
        counted = await self._count(group)
        if counted is None:
            return
        self._report.contradictions += [f"{counted.group}: {contradiction}" for contradiction in counted.contradictions]
        self._report.remarks += [f"{counted.group}: {remark}" for remark in counted.remarks]
        known = await self._known(counted)
        if counted.not_found:
            await self._gone(counted, known)
            return
        await self._observed(counted, counted.shown)
        if counted.needs_full_read or self._options.deep or differs(counted, known):
            await self._full_read(counted)
        else:
            await self._events(known)
            self._book(counted, counted.counts, known)

    async def _count(self, group: str) -> GroupCounts | None:
        """Return the provider's counts; with cached counts, ask the provider only if those differ from the ledger."""
        if not self._options.use_cached_counts:
            return await self._source.count(group, self._cursor, ask=True)
        counted = await self._source.count(group, self._cursor, ask=False)
        if counted is None or counted.needs_full_read or counted.not_found:
            return counted
        known = await self._known(counted)
        shown = await self._histories(counted, counted.shown)
        agree = all(agrees(observation, resource) for observation, resource in zip(counted.shown, shown, strict=True))
        return (
            None if agree and not differs(counted, known) else await self._source.count(group, self._cursor, ask=True)
        )

    async def _known(self, counted: GroupCounts) -> list[LedgerResource]:
        """Return the ledger's resources of a group that has a scope of its own, without the group itself."""
        if counted.scope is None:
            return []
        histories = await self._ledger.scope(self._name, counted.scope)
        named = ((counted.subject(name), name, history) for name, history in histories.items())
        return [
            LedgerResource(resource, Key(counted.scope, name), counted.kind, history)
            for resource, name, history in named
            if resource != counted.group
        ]

    async def _gone(self, counted: GroupCounts, known: Sequence[LedgerResource]) -> None:
        """Report a group that the provider does not know, and every resource that the ledger has of it."""
        self._add_difference(Difference(counted.group, counted.group, "gone"), None)
        for resource in known:
            if not resource.key.name.startswith(_DIGEST):
                self._add_difference(self._difference(counted, resource, "gone", None), None)
        self._book(counted, {}, known)

    async def _full_read(self, counted: GroupCounts) -> None:
        """Read the whole group, and once more if the provider lists fewer than it counts."""
        seen: dict[Key, Observation] = {}
        total = None if counted.contradictions else counted.total
        for _ in range(_MAX_READS):
            async with aclosing(self._source.members(counted.group, self._cursor)) as pages:
                async for page in pages:
                    seen.update(
                        (Key(observation.scope, observation.key), observation) for observation in page.observations
                    )
                    if total is not None and len(seen) >= total:
                        break
            if total is None or len(seen) >= total:
                break
        shown = list(seen.values())
        known = await self._observed(counted, shown)
        unlisted = await self._unlisted(counted, seen)
        # A resource that is counted and not listed exists, but the provider does not show it.
        what = "withheld" if total is not None and len(seen) + len(unlisted) <= total else "gone"
        for resource in unlisted:
            self._add_difference(self._difference(counted, resource, what, None), None)
        await self._events([*known, *unlisted])
        hidden = 0 if total is None else total - len(seen) - len(unlisted)
        if hidden > 0:
            provider_says = f"{total} counted, {len(seen)} listed"
            self._add_difference(
                Difference(counted.group, counted.group, "withheld", provider_says, f"{len(known)} known"), None
            )
        listed = Counter(
            observation.kind.lifecycle.status_by_value.get(observation.status, UNKNOWN) for observation in shown
        )
        self._book(counted, counted.counts or listed, [*known, *unlisted])

    async def _unlisted(self, counted: GroupCounts, seen: Collection[Key]) -> list[LedgerResource]:
        """Return the ledger's resources of the group that the provider should have shown and did not."""
        expects = counted.expects
        expected = await self._known(counted) if expects is None else await self._expected(counted, expects, seen)
        return [
            resource for resource in expected if resource.key not in seen and not resource.key.name.startswith(_DIGEST)
        ]

    async def _expected(
        self, counted: GroupCounts, expects: ExpectedKey, seen: Collection[Key]
    ) -> list[LedgerResource]:
        """Return the ledger's entries of what the provider should show by the events before it was asked."""
        expected = await self._expected_keys(counted, expects)
        left = {resource: key for resource, key in expected.items() if key not in seen}
        histories = await self._ledger.last_seen(self._name, list(left.values()), 0.0) if left else ()
        return [
            LedgerResource(resource, key, counted.kind, history)
            for (resource, key), history in zip(left.items(), histories, strict=True)
            if history is not None
        ]

    async def _expected_keys(self, counted: GroupCounts, expects: ExpectedKey) -> dict[str, Key]:
        expected: dict[str, Key] = {}
        async for entries in journal_batches(self._ledger, self._name):
            for view in map(EventView.of, entries):
                if not view.subject.startswith(f"{counted.group}/") or is_overdue(view.data):
                    continue
                key = expects(view.subject, view.data)
                # The provider's answer may be older than a later event.
                if key is None or view.recorded is None or view.recorded > counted.by:
                    expected.pop(view.subject, None)
                else:
                    expected[view.subject] = Key(*key)
        return expected

    # one resource

    async def _observed(self, counted: GroupCounts, shown: Sequence[Observation]) -> list[LedgerResource]:
        """Compare what the provider has shown with the ledger; return the ledger's entries of it."""
        known = await self._histories(counted, shown)
        for observation, resource in zip(shown, known, strict=True):
            if not agrees(observation, resource):
                status = observation.kind.lifecycle.status_by_value.get(observation.status, UNKNOWN)
                what = "missing" if resource.history is None or observation.occurrence_id is not None else "status"
                self._add_difference(self._difference(counted, resource, what, status), resource)
        return [resource for resource in known if resource.history is not None]

    async def _histories(self, counted: GroupCounts, shown: Sequence[Observation]) -> list[LedgerResource]:
        known: list[LedgerResource] = []
        for start in range(0, len(shown), _BATCH_RESOURCES):
            batch = shown[start : start + _BATCH_RESOURCES]
            keys = [Key(observation.scope, observation.key) for observation in batch]
            histories = await self._ledger.last_seen(self._name, keys, 0.0)
            known += [
                LedgerResource(
                    path_of(counted, observation),
                    key,
                    observation.kind,
                    history,
                    has_occurrence_ids=observation.occurrence_id is not None,
                )
                for observation, key, history in zip(batch, keys, histories, strict=True)
            ]
        return known

    async def _events(self, known: Sequence[LedgerResource]) -> None:
        """Compare the ledger with the last events; one transaction writes both, so they never differ."""
        if self._options.use_cached_counts:
            return
        await self._last_events.catch_up()
        odd = [
            resource
            for resource in known
            if not resource.has_occurrence_ids and self._last_events.get(resource.resource) != resource.status
        ]
        for start in range(0, len(odd), _BATCH_RESOURCES):
            batch = odd[start : start + _BATCH_RESOURCES]
            now = await self._ledger.last_seen(self._name, [resource.key for resource in batch], 0.0)
            for resource, history in zip(batch, now, strict=True):
                if history == resource.history:
                    self._check_last_event(resource)

    def _check_last_event(self, resource: LedgerResource) -> None:
        journal = self._report.journal
        whole = self._published and journal.first == journal.base + 1
        if self._last_events.get(resource.resource) is None and not whole:
            self._without_event += 1
            return
        event = self._last_events.get(resource.resource)
        group = resource.key.scope
        self._add_difference(Difference(resource.resource, group, "event", None, resource.status, event), None)

    def _difference(
        self, counted: GroupCounts, resource: LedgerResource, what: str, provider: str | None
    ) -> Difference:
        return Difference(
            resource.resource, counted.group, what, provider, resource.status, self._last_events.get(resource.resource)
        )

    def _add_difference(self, difference: Difference, known: LedgerResource | None) -> None:
        if self._options.includes(difference.resource):
            self._pending.append(_PendingDifference(difference, known, self._group))

    def _book(self, counted: GroupCounts, provider: Mapping[str, int] | None, known: Sequence[LedgerResource]) -> None:
        label = f"{counted.kind.channel} {counted.kind.entity}"
        ledger = Counter(resource.status for resource in known if resource.status is not None)
        events = Counter(
            status for resource in known if (status := self._last_events.get(resource.resource)) is not None
        )
        self._report.groups.append(GroupBook(counted.group, label, provider, ledger, events))

    # at the end

    async def _wait_for_convergence(self) -> None:
        """Drop what the poller changes within the wait: a change that it records now is no difference."""
        deadline = self._clock.monotonic() + self._options.max_wait
        while True:
            self._pending = await self._still_different(self._pending)
            waiting = any(pending.known is not None for pending in self._pending)
            if not waiting or self._clock.monotonic() >= deadline:
                return
            await self._clock.sleep(_ASK_AGAIN_SECONDS)

    async def _still_different(self, differences: Sequence[_PendingDifference]) -> list[_PendingDifference]:
        kept = [pending for pending in differences if pending.known is None]
        asked = [(pending, pending.known) for pending in differences if pending.known is not None]
        for start in range(0, len(asked), _BATCH_RESOURCES):
            batch = asked[start : start + _BATCH_RESOURCES]
            histories = await self._ledger.last_seen(self._name, [known.key for _, known in batch], 0.0)
            kept += [
                pending for (pending, known), history in zip(batch, histories, strict=True) if history == known.history
            ]
        return kept

    def _note_missing_events(self) -> None:
        if self._without_event:
            why = _TRIMMED if self._published else _BASELINE
            self._report.remarks.append(f"{self._without_event} resources have no event in the journal: {why}")
