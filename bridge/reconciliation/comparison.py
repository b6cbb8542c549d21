"""One source's books, group by group: what its provider says, what the ledger knows, and what events have told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from pydantic_core import from_json

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, NotReady, Unauthorized, Unavailable
from bridge.domain.event import INTERNAL_CHANNEL
from bridge.domain.lifecycle import UNKNOWN, StatusHistory
from bridge.protocols.deliveries import DeliveryCounts
from bridge.protocols.ledger import JournalState, Key, Ledger
from bridge.protocols.source import (
    ExpectedKey,
    GroupCounts,
    HasStatistics,
    Observation,
    Reconcilable,
    ResourceType,
    Statistics,
)

_BATCH_RESOURCES = 1000
_ASK_AGAIN_SECONDS = 0.5
_MAX_WALKS = 2
_DIGEST = "#"
"""Names that begin so may be digests of longer ones, from which no path can be made."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One resource of which not all books say the same."""

    resource: str
    """Its path at the provider."""
    group: str
    what: str
    """`missing`: the ledger does not know it. `status`: ledger and provider disagree. `gone`: the provider shows it no
    more. `withheld`: the provider counts it and lists it nowhere; of a group, it counts more than it lists and we know.
    `event`: the last event tells another status than the ledger. `unconfirmed`: the broker has not confirmed its event.
    `undelivered`: a sink's books know nothing of its event."""
    provider: str | None = None
    ledger: str | None = None
    event: str | None = None
    """The status that the last event told."""
    sink: str | None = None


@dataclass(slots=True)
class GroupBook:
    """What the books say of one group: its resources by status."""

    group: str
    label: str
    """Channel and entity of the resources, such as `voice recipient`."""
    provider: Mapping[str, int] | None = None
    """None where the provider counts nothing, and was not asked for the resources one by one."""
    ledger: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SinkBook:
    """What one sink's books say of one source."""

    counts: DeliveryCounts
    unaccounted: int
    """Events that it should know of and does not: on their way, or lost there."""


@dataclass(slots=True)
class Report:
    """What a comparison found."""

    source: str
    at: datetime
    groups: list[GroupBook] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    """Where the provider contradicts itself: its own difference, not ours."""
    remarks: list[str] = field(default_factory=list)
    """What could not be compared, and why."""
    statistics: list[Statistics] = field(default_factory=list)
    """What the provider counts over all groups; where that differs from what is known, nobody can say by whom."""
    failures: dict[str, str] = field(default_factory=dict)
    """The groups that could not be asked for, and why."""
    journal: JournalState = field(default_factory=JournalState)
    sinks: dict[str, SinkBook] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether all that was to be compared was compared and agrees."""
        return not self.differences and not self.failures

    def totals(self) -> dict[str, dict[str, Counter[str]]]:
        """Return for each label what provider, ledger and events count in all groups together."""
        totals: dict[str, dict[str, Counter[str]]] = {}
        for book in self.groups:
            row = totals.setdefault(book.label, {"provider": Counter(), "ledger": Counter(), "events": Counter()})
            row["provider"].update(book.provider or {})
            row["ledger"].update(book.ledger)
            row["events"].update(book.events)
        return totals


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What a comparison includes, and how long it waits."""

    resource: str | None = None
    """Only this resource, or this group with all that is in it."""
    deep: bool = False
    """Read every resource of every group, also where the counts agree: two opposite errors cancel out."""
    everything: bool = False
    """Take in groups that nobody looks at any more."""
    use_cached_counts: bool = False
    """Ask the provider only where what the polls have learnt differs, and leave out the events."""
    max_wait: float = 0.0
    """Seconds in which the ledger may still learn what the provider said before that counts as a difference."""

    def includes(self, resource: str) -> bool:
        """Say whether a resource is to be compared."""
        return self.resource is None or resource == self.resource or resource.startswith(f"{self.resource}/")

    def includes_group(self, group: str) -> bool:
        """Say whether a group is to be compared."""
        return self.includes(group) or (self.resource is not None and self.resource.startswith(f"{group}/"))


class LastEventStatuses:
    """A journal replayed: the status that the last event told of each resource."""

    def __init__(self, ledger: Ledger, source: str) -> None:
        self._ledger = ledger
        self._source = source
        self._after = 0
        self._last: dict[str, str] = {}

    def of(self, resource: str) -> str | None:
        """Return the status that was told last; None where the journal has nothing of the resource."""
        return self._last.get(resource)

    async def catch_up(self) -> None:
        """Read what was committed since the last time."""
        while entries := await self._ledger.read(self._source, self._after, _BATCH_RESOURCES):
            for entry in entries:
                body = from_json(entry.event.body)
                if body["data"]["channel"] != INTERNAL_CHANNEL:
                    self._last[body["subject"]] = body["data"]["status"]
            self._after = entries[-1].position.seq


@dataclass(frozen=True, slots=True)
class _LedgerResource:
    """One resource as the ledger has it."""

    resource: str
    key: Key
    kind: ResourceType
    history: str | None
    marked: bool = False
    """The provider marks its occurrences, so that the last status says little."""

    @property
    def status(self) -> str | None:
        last = StatusHistory.parse(self.history).last
        return None if last is None else self.kind.lifecycle.status(last)


@dataclass(frozen=True, slots=True)
class _PendingDifference:
    """A difference that may only mean that the next poll was not yet."""

    difference: Difference
    known: _LedgerResource | None


class Comparison:
    """Compares provider, ledger and events of one source once; nothing is changed by it.

    The provider is read first and the ledger after it, and a resource that the poller moves while we look is the
    poller's: so a service that works is never blamed for what it is just doing.
    """

    def __init__(
        self, name: str, source: Reconcilable, ledger: Ledger, clock: Clock, wanted: CompareOptions, *, published: bool
    ) -> None:
        """Prepare; `published` says that whatever the ledger knows became an event, as a baseline did not."""
        self._name = name
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._wanted = wanted
        self._published = published
        self._last_statuses = LastEventStatuses(ledger, name)
        self._pending: list[_PendingDifference] = []
        self._without_event = 0
        self._cursor: Mapping[str, str] = {}
        self._report = Report(name, clock.now())

    async def run(self, cursor: Mapping[str, str], watched: Sequence[str], on_group: Callable[[str], None]) -> Report:
        """Compare group by group; `told` hears of each as it begins. See `bridge.reconcile.Reconciler.compare`."""
        report, wanted = self._report, self._wanted
        report.journal = await self._ledger.journal(self._name)
        self._cursor = cursor
        if not wanted.use_cached_counts:
            await self._last_statuses.catch_up()
        for group in await self._groups(watched):
            on_group(group)
            try:
                await self._compare(group)
            except (Unauthorized, Unavailable):
                raise
            except NotReady as error:
                report.remarks.append(f"{group}: not compared: {error}")
            except BridgeError as error:
                report.failures[group] = str(error)
        if wanted.resource is None and not wanted.use_cached_counts and isinstance(self._source, HasStatistics):
            await self._add_statistics(self._source)
        await self._wait_for_convergence()
        report.differences += [pending_difference.difference for pending_difference in self._pending]
        self._remark_on_events()
        return report

    async def _add_statistics(self, source: HasStatistics) -> None:
        try:
            self._report.statistics += await source.statistics(self._cursor)
        except Unavailable:
            raise
        except BridgeError as error:
            self._report.remarks.append(f"the provider's statistics: {error}")

    async def _groups(self, watched: Sequence[str]) -> list[str]:
        wanted = self._wanted
        groups = self._source.groups(self._cursor, watched, everything=wanted.everything)
        included = [group async for group in groups if wanted.includes_group(group)]
        return list(dict.fromkeys(included)) or ([] if wanted.resource is None else [wanted.resource])

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
        if counted.needs_full_read or self._wanted.deep or _differs(counted, known):
            await self._walk(counted)
        else:
            await self._events(known)
            self._book(counted, counted.counts, known)

    async def _count(self, group: str) -> GroupCounts | None:
        """Return the provider's account; with cached counts, only if these differ from the ledger."""
        if not self._wanted.use_cached_counts:
            return await self._source.count(group, self._cursor, ask=True)
        counted = await self._source.count(group, self._cursor, ask=False)
        if counted is None or counted.needs_full_read or counted.not_found:
            return counted
        known = await self._known(counted)
        shown = await self._histories(counted, counted.shown)
        agree = all(_agrees(observation, resource) for observation, resource in zip(counted.shown, shown, strict=True))
        return (
            None if agree and not _differs(counted, known) else await self._source.count(group, self._cursor, ask=True)
        )

    async def _known(self, counted: GroupCounts) -> list[_LedgerResource]:
        """Return what the ledger has of a group that has a scope of its own, without the group itself."""
        if counted.scope is None:
            return []
        histories = await self._ledger.scope(self._name, counted.scope)
        named = ((counted.subject(name), name, history) for name, history in histories.items())
        return [
            _LedgerResource(resource, Key(counted.scope, name), counted.kind, history)
            for resource, name, history in named
            if resource != counted.group
        ]

    async def _gone(self, counted: GroupCounts, known: Sequence[_LedgerResource]) -> None:
        """Name the group that the provider does not know, and all that the ledger has of it."""
        self._add_pending(Difference(counted.group, counted.group, "gone"), None)
        for resource in known:
            if not resource.key.name.startswith(_DIGEST):
                self._add_pending(self._difference(counted, resource, "gone", None), None)
        self._book(counted, {}, known)

    async def _walk(self, counted: GroupCounts) -> None:
        """Read the whole group, and once more where fewer are listed than counted."""
        seen: dict[Key, Observation] = {}
        total = None if counted.contradictions else counted.total
        for _ in range(_MAX_WALKS):
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
        # What is counted and stands on no list is there, and shows itself to nobody.
        what = "withheld" if total is not None and len(seen) + len(unlisted) <= total else "gone"
        for resource in unlisted:
            self._add_pending(self._difference(counted, resource, what, None), None)
        await self._events([*known, *unlisted])
        hidden = 0 if total is None else total - len(seen) - len(unlisted)
        if hidden > 0:
            provider_says = f"{total} counted, {len(seen)} listed"
            self._add_pending(
                Difference(counted.group, counted.group, "withheld", provider_says, f"{len(known)} known"), None
            )
        listed = Counter(
            observation.kind.lifecycle.status_by_value.get(observation.status, UNKNOWN) for observation in shown
        )
        self._book(counted, counted.counts or listed, [*known, *unlisted])

    async def _unlisted(self, counted: GroupCounts, seen: Collection[Key]) -> list[_LedgerResource]:
        """Return what the ledger has of the group and the provider did not show, though it should."""
        expects = counted.expects
        expected = await self._known(counted) if expects is None else await self._expected(counted, expects, seen)
        return [
            resource for resource in expected if resource.key not in seen and not resource.key.name.startswith(_DIGEST)
        ]

    async def _expected(
        self, counted: GroupCounts, expects: ExpectedKey, seen: Collection[Key]
    ) -> list[_LedgerResource]:
        """Return what the provider should have shown by what was told before it was asked, as the ledger has it now."""
        expected_keys = await self._expected_keys(counted, expects)
        left = {resource: key for resource, key in expected_keys.items() if key not in seen}
        histories = await self._ledger.last_seen(self._name, list(left.values()), 0.0) if left else ()
        return [
            _LedgerResource(resource, key, counted.kind, history)
            for (resource, key), history in zip(left.items(), histories, strict=True)
            if history is not None
        ]

    async def _expected_keys(self, counted: GroupCounts, expects: ExpectedKey) -> dict[str, Key]:
        expected_keys: dict[str, Key] = {}
        after = 0
        while entries := await self._ledger.read(self._name, after, _BATCH_RESOURCES):
            after = entries[-1].position.seq
            for body in (from_json(entry.event.body) for entry in entries):
                resource = body["subject"]
                if not resource.startswith(f"{counted.group}/"):
                    continue
                key = expects(resource, body["data"])
                # What was told later may be too young for the answer.
                if key is None or datetime.fromisoformat(body["recordedtime"]) > counted.by:
                    expected_keys.pop(resource, None)
                else:
                    expected_keys[resource] = Key(*key)
        return expected_keys

    # one resource

    async def _observed(self, counted: GroupCounts, shown: Sequence[Observation]) -> list[_LedgerResource]:
        """Compare what the provider has shown with the ledger; return what the ledger knows of it."""
        known = await self._histories(counted, shown)
        for observation, resource in zip(shown, known, strict=True):
            if not _agrees(observation, resource):
                status = observation.kind.lifecycle.status_by_value.get(observation.status, UNKNOWN)
                what = "missing" if resource.history is None or observation.occurrence_id is not None else "status"
                self._add_pending(self._difference(counted, resource, what, status), resource)
        return [resource for resource in known if resource.history is not None]

    async def _histories(self, counted: GroupCounts, shown: Sequence[Observation]) -> list[_LedgerResource]:
        known: list[_LedgerResource] = []
        for start in range(0, len(shown), _BATCH_RESOURCES):
            batch = shown[start : start + _BATCH_RESOURCES]
            keys = [Key(observation.scope, observation.key) for observation in batch]
            histories = await self._ledger.last_seen(self._name, keys, 0.0)
            known += [
                _LedgerResource(
                    _path(counted, observation),
                    key,
                    observation.kind,
                    history,
                    marked=observation.occurrence_id is not None,
                )
                for observation, key, history in zip(batch, keys, histories, strict=True)
            ]
        return known

    async def _events(self, known: Sequence[_LedgerResource]) -> None:
        """Compare the ledger with what events have told; both are written as one, so they never differ for a moment."""
        if self._wanted.use_cached_counts:
            return
        await self._last_statuses.catch_up()
        odd = [
            resource
            for resource in known
            if not resource.marked and self._last_statuses.of(resource.resource) != resource.status
        ]
        for start in range(0, len(odd), _BATCH_RESOURCES):
            batch = odd[start : start + _BATCH_RESOURCES]
            now = await self._ledger.last_seen(self._name, [resource.key for resource in batch], 0.0)
            for resource, history in zip(batch, now, strict=True):
                if history == resource.history:
                    self._check_last_event(resource)

    def _check_last_event(self, resource: _LedgerResource) -> None:
        journal = self._report.journal
        whole = self._published and journal.first == journal.base + 1
        if self._last_statuses.of(resource.resource) is None and not whole:
            self._without_event += 1
            return
        event = self._last_statuses.of(resource.resource)
        group = resource.key.scope
        self._add_pending(Difference(resource.resource, group, "event", None, resource.status, event), None)

    def _difference(
        self, counted: GroupCounts, resource: _LedgerResource, what: str, provider: str | None
    ) -> Difference:
        return Difference(
            resource.resource, counted.group, what, provider, resource.status, self._last_statuses.of(resource.resource)
        )

    def _add_pending(self, difference: Difference, known: _LedgerResource | None) -> None:
        if self._wanted.includes(difference.resource):
            self._pending.append(_PendingDifference(difference, known))

    def _book(self, counted: GroupCounts, provider: Mapping[str, int] | None, known: Sequence[_LedgerResource]) -> None:
        label = f"{counted.kind.channel} {counted.kind.entity}"
        ledger = Counter(resource.status for resource in known if resource.status is not None)
        events = Counter(
            status for resource in known if (status := self._last_statuses.of(resource.resource)) is not None
        )
        self._report.groups.append(GroupBook(counted.group, label, provider, ledger, events))

    # at the end

    async def _wait_for_convergence(self) -> None:
        """Drop what the poller has moved since: what it sees now is no difference of the books."""
        deadline = self._clock.monotonic() + self._wanted.max_wait
        while True:
            self._pending = await self._still_different(self._pending)
            waiting = any(pending_difference.known is not None for pending_difference in self._pending)
            if not waiting or self._clock.monotonic() >= deadline:
                return
            await self._clock.sleep(_ASK_AGAIN_SECONDS)

    async def _still_different(self, pending: Sequence[_PendingDifference]) -> list[_PendingDifference]:
        kept = [pending_difference for pending_difference in pending if pending_difference.known is None]
        asked = [
            (pending_difference, pending_difference.known)
            for pending_difference in pending
            if pending_difference.known is not None
        ]
        for start in range(0, len(asked), _BATCH_RESOURCES):
            batch = asked[start : start + _BATCH_RESOURCES]
            histories = await self._ledger.last_seen(self._name, [known.key for _, known in batch], 0.0)
            kept += [
                pending_difference
                for (pending_difference, known), history in zip(batch, histories, strict=True)
                if history == known.history
            ]
        return kept

    def _remark_on_events(self) -> None:
        if self._without_event:
            why = "it is kept for a while only" if self._published else "a first start recorded them as its baseline"
            self._report.remarks.append(f"{self._without_event} resources have no event in the journal: {why}")


def _agrees(observation: Observation, known: _LedgerResource) -> bool:
    if observation.occurrence_id is not None:
        return observation.occurrence_id in StatusHistory.parse(known.history).occurrence_ids
    return known.history is not None and StatusHistory.parse(known.history).last == observation.kind.lifecycle.code(
        observation.status
    )


def _differs(counted: GroupCounts, known: Sequence[_LedgerResource]) -> bool:
    if counted.counts is None:
        return False
    ours = Counter(resource.status for resource in known)
    return dict(counted.counts) != dict(ours) or (counted.total is not None and counted.total != len(known))


def _path(counted: GroupCounts, observation: Observation) -> str:
    try:
        return observation.kind.describe(observation).subject
    except Exception:  # noqa: BLE001 - a plugin's fault in one resource must not stop the comparison
        return counted.subject(observation.key)
