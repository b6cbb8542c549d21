"""What a source promises: pages of observations from a cursor on, and the record by which a plugin offers one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field

from bridge.domain.clock import Clock
from bridge.domain.event import Data, Event
from bridge.domain.expect import ExpectSettings
from bridge.domain.lifecycle import Lifecycle
from bridge.domain.settings import Duration, Rate, Settings

RATE_WINDOW_SECONDS = 1.01
"""Seconds that a request budget adds to each second: the provider counts by its own clock."""
ASSUMED_ARRIVAL_SECONDS = 1.0
"""Seconds after which a request counts as arrived, answered or not: two losses of a packet in a row take less."""


@dataclass(frozen=True, slots=True, eq=False)
class ResourceType:
    """What all observations of one sort share: `voice` `recipient`, its lifecycle, and how its facts are read."""

    channel: str
    entity: str
    lifecycle: Lifecycle
    events: Mapping[str, type[Event]]
    """The event of each status of the lifecycle."""
    describe: Callable[[Observation], Facts]
    """Reads an observation's facts; pure, and called only for those that became events."""
    overdue: type[Event] | None = None
    """The event that a resource has had no final status for too long; None if such resources are not waited for."""

    @classmethod
    def of(
        cls,
        *,
        values: Mapping[str, type[Event]],
        describe: Callable[[Observation], Facts],
        follows: Mapping[type[Event], Collection[type[Event]]] | None = None,
        finals: Collection[type[Event]] | None = None,
        overdue: type[Event] | None = None,
    ) -> ResourceType:
        """Return the type whose channel, entity and statuses are those of its event classes.

        `values` maps each of the provider's values to the event that it makes. `follows` lists the direct successors of
        an event; without `finals`, the events that have no successor are final. `overdue` is no status. See
        `bridge.domain.lifecycle.Lifecycle` for the others. Raises `ValueError` if the classes differ in channel or
        entity.
        """
        events = dict.fromkeys(values.values())
        if len({(event.channels[0], event.entity) for event in events}) != 1:
            raise ValueError("all events of a resource type have one channel and one entity")
        successors = {event.status: tuple(later.status for later in after) for event, after in (follows or {}).items()}
        final = (event for event in events if event.status not in successors) if finals is None else finals
        lifecycle = Lifecycle(
            status_by_value={value: event.status for value, event in values.items()},
            follows=successors,
            finals=frozenset(event.status for event in final),
        )
        first = next(iter(events))
        by_status = {event.status: event for event in events}
        return cls(first.channels[0], first.entity, lifecycle, by_status, describe, overdue)

    def with_statuses(self, statuses: Mapping[str, str]) -> ResourceType:
        """Return the type with an operator's further provider's values, as `SourceSettings.statuses` has them.

        Raises `ValueError` that names a status which the type does not have.
        """
        return replace(self, lifecycle=self.lifecycle.with_names(statuses))


@dataclass(slots=True)
class Observation:
    """A resource had this status when we looked; nobody changes it afterwards.

    Cheap on purpose: most observations turn out to be no news, and `frozen` would make each three times as dear. `item`
    is the provider's answer as it was read.
    """

    kind: ResourceType
    scope: str
    """The unit of retention in the ledger: the statuses of one scope are kept and expire together."""
    key: str
    """The resource's name inside its scope; short decimal numbers are kept most cheaply."""
    status: str
    """The provider's own value, as text."""
    item: Any
    detail: str | None = None
    occurrence_id: str | None = None
    """The provider's own id of the occurrence, where it has one: each mark is one event."""
    awaits_detail: bool = False
    """Whether `Source.complete` may add facts, at the price of further requests, should this become an event."""


@dataclass(slots=True)  # not frozen: see `Observation`
class Facts:
    """What an event says beyond its transition; nobody changes it afterwards."""

    subject: str
    """The resource's path at the provider."""
    time: datetime | None
    """When the transition happened by the provider's own account; None where it gives no such time."""
    fields: Mapping[str, Any]
    """The fields of the event's data class, apart from those of `bridge.domain.event.Data`."""
    model: type[Data]
    first_time: datetime | None = None
    """The provider's time of a resource that is seen for the first time, where only that is known."""
    raw_status: str | int | None = None
    """The provider's own value of the status, for `UnknownStatus`."""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a provider, read.

    Statuses, events and the cursor's changes of one page are committed in one atomic write.
    """

    observations: Sequence[Observation]
    by: datetime
    """When the answer had arrived."""
    after: datetime | None = None
    """A time at which all of this page's resources had been looked at before, or did not exist."""
    cursor: Mapping[str, str | None] = field(default_factory=dict)
    """Entries of the cursor to set, or with None to remove, once all that came before is committed."""
    unchanged: int = 0
    """How many further resources the answer showed, all just as they were when they were last committed."""
    backlog: bool = False
    """Whether its resources belong to what a first start found, read only now: a list failed, or the poll ended early.

    With `first_sight: baseline`, those never seen before are recorded and not published. The pages of the first poll
    that came to its end need not say so.
    """
    pushed: datetime | None = None
    """When the provider pushed that there was news of these resources, if that is why they were looked at."""
    progress: float = 0.0
    """Of a backfill's page: how much of the range is read by now, from 0 to 1, as far as the source can tell."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What `bridgectl check` found out about a source without changing anything."""

    summary: str
    """One line for a reader, without secrets."""
    requests_per_day: float
    """How many requests the configured interval costs when nothing happens."""
    warning: str | None = None
    """What works, and will not for long: one line with the remedy, without secrets."""
    requests_per_year: int | None = None
    """How many requests the account allows in a year; None if nothing says so."""


class Source(Protocol):
    """Yields a provider's resources and their statuses.

    Construction has no side effects. `pages` asked twice with one cursor yields the same, as far as the provider does.
    Every failure is `Transient` (with `Unauthorized` and `NotReady` among it) or `Permanent`; both texts are fit for a
    log. One bad resource never stops the sweep over the others: its failure is reported by `problems` afterwards.
    """

    retention: float
    """Seconds for which the ledger keeps a scope after it was last looked at."""
    problems: list[str]
    """What went wrong with single resources in the last sweep, a line each, fit for a log."""
    behind: bool
    """Whether the last poll stopped before everything that was due was looked at: the next one follows at once."""

    def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Poll once: yield what is due now. `watched` are the resources that an operator named.

        The caller asks for more while it commits what came before, some pages ahead. What was not committed when a poll
        ends early comes again at the next one, for then the cursor still stands before it.
        """
        ...

    def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Yield what happened, or was created, between two times; its pages have no cursor entries."""
        ...

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return the observations (those with `awaits_detail` that are news) with what more can be found out.

        The answer has the same length and order.
        """
        ...

    def resource(self, text: str) -> str:
        """Return the canonical path of a resource that an operator named; raises `ValueError` saying what to give."""
        ...

    async def probe(self) -> Probe:
        """Ask the provider one cheap question; raises as `pages` does."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


@runtime_checkable
class ResumableBackfill(Protocol):
    """A source whose backfill may be cut into steps, so that one that was interrupted goes on where it stood.

    Any other source's backfill is one step, which an interruption repeats whole.
    """

    backfill_step: float
    """For how many seconds of the past one step asks."""


@runtime_checkable
class HasAccount(Protocol):
    """A source that knows whose account it asks: those with the same one share its budget of requests.

    Any other source has an account of its own.
    """

    @property
    def account(self) -> str:
        """Return a name of the account from which no secret can be read; the same in every process."""
        ...


@runtime_checkable
class RecognizesAccount(Protocol):
    """A source that can tell its account from another one, whatever credentials it has.

    The ledger keeps the fingerprint with the source. Of any other source it keeps `HasAccount.account`, so that changed
    credentials are another account, as long as the operator does not say otherwise.
    """

    def fingerprint(self) -> str:
        """Return what tells the account from others: first its origin, no secret; the same in every process.

        Raises `Unauthorized` if credentials that it depends on cannot be read.
        """
        ...

    async def recognizes(self, fingerprint: str, cursor: Mapping[str, str]) -> bool:
        """Return whether a fingerprint that is not ours is nevertheless of this account, judging by its cursor.

        False if that cannot be told. Raises as `Source.pages` does.
        """
        ...


@runtime_checkable
class HasResourceTypes(Protocol):
    """A source that says what it lists; `expect.final_within` needs that, and an overdue event for one of them."""

    @property
    def resource_types(self) -> Sequence[ResourceType]:
        """Return the types of all that it can observe."""
        ...


ExpectedKey = Callable[[str, Mapping[str, Any]], tuple[str, str] | None]


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """What a provider itself says of one group of resources: of a message's recipients, of a window's records."""

    group: str
    by: datetime
    """When the answer had arrived."""
    kind: ResourceType
    """Of the resources that are counted."""
    subject: Callable[[str], str]
    """Makes a resource's path from its name in the ledger."""
    scope: str | None = None
    """The ledger's scope that holds the group and nothing else; None where there is no such scope."""
    counts: Mapping[str, int] | None = None
    """How many resources are in each status (of ours), zeros left out; None where the provider does not say."""
    total: int | None = None
    """How many resources there are; None where the provider does not say."""
    shown: Sequence[Observation] = ()
    """Resources that the answer showed, the group itself for one."""
    not_found: bool = False
    """The provider does not know the group (any more)."""
    needs_full_read: bool = False
    """Nothing less than reading the whole group tells what the provider has."""
    expects: ExpectedKey | None = None
    """Where there is no scope: from a resource's path and its last event's data, the ledger's scope and name of it if
    the provider should show it, else None."""
    contradictions: Sequence[str] = ()
    """Where the provider's own counts do not add up: a line each."""
    remarks: Sequence[str] = ()
    """What cannot be compared, and why: a line each."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a provider counts of everything that began in a stretch of time, whether we know of it or not."""

    label: str
    """Channel and entity of the resources, such as `sms recipient`."""
    start: datetime
    end: datetime
    """The first moment that is not in it."""
    total: int
    """How many resources the provider counts."""
    known: int
    """How many there are, by the provider's own counts, in the groups of that time that we know of."""
    groups: int
    """How many groups those are."""


@runtime_checkable
class HasStatistics(Protocol):
    """A source whose provider also counts over all groups: that tells of a group that it has listed to nobody."""

    async def statistics(self, cursor: Mapping[str, str]) -> Sequence[Statistics]:
        """Ask for what is counted; empty where the provider has no such counts, or they cover nothing that is known.

        Raises as `Source.pages` does.
        """
        ...


@runtime_checkable
class Reconcilable(Protocol):
    """A source whose provider can be asked once more, so that its own account can be held against ours.

    Nothing of this changes anything: neither the cursor nor the ledger. All methods raise as `Source.pages` does.
    """

    def groups(self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool) -> AsyncIterator[str]:
        """Yield the names of the groups: those that are followed, and with `everything` all that the cursor knows.

        Groups that the provider lists and the cursor should know are among them.
        """
        ...

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        """Ask what the provider counts in a group; it may be a group that `groups` does not name.

        Without `ask`, tell what the polls have learnt, at no request; None where only asking tells. What the polls
        could not read, and should have, is asked for all the same.
        """
        ...

    def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        """Read a whole group; a resource may come more than once, the last one counts.

        What is only asked for because a list may have holes comes last: a caller that has seen all stops before.
        """
        ...


class SourceSettings(Settings):
    """What every source can be told; a plugin's own settings extend this."""

    own_events: ClassVar[tuple[type[Event], ...]] = ()
    """Events that sources with these very settings make, in addition to those of the plugin."""

    type: str
    """The name of the installed source."""
    interval: Duration = Field(default=30.0, gt=0)
    """How often the provider is asked."""
    idle_slowdown: float = Field(default=1.0, ge=1, le=1000)
    """How many times longer the interval becomes, step by step, while nothing happens; 1 is never."""
    rate: Rate = 4.0
    """Requests a second, for the account."""
    stall_after: Duration = Field(default=300.0, gt=0)
    """Failing for longer than this publishes SourceStalled."""
    first_sight: Literal["emit", "baseline"] = "emit"
    """With `baseline`, what a first start finds is recorded and not published, also if it is read only later."""
    account_label: str | None = Field(default=None, min_length=1)
    """Your own name of the account. While it stays, the account counts as the same, whatever url and token say."""
    expect: ExpectSettings | None = None
    """What you expect of the provider; the bridge publishes what does not come."""
    statuses: dict[str, str] = Field(default_factory=dict)
    """Further values of the provider, mapped to statuses that the tables know."""


@dataclass(frozen=True, slots=True)
class SourcePlugin:
    """What an entry point of `bridge.sources` names: settings and constructor, each once."""

    settings: type[SourceSettings]
    build: Callable[[str, Any, Clock], Source]
    """Called with the source's name, its validated settings and the clock."""
    events: tuple[type[Event], ...] = ()
    """Events beyond the catalogue that this source makes."""
    summary: str = ""
    channels: Callable[[Any], Collection[str]] | None = None
    """Which of its events' channels a source with these settings has; without it, all of them."""
    settings_for: Callable[[Mapping[str, Any], Path], type[SourceSettings]] | None = None
    """For a plugin whose settings depend on what a source is told: the model for the values of one source, in a
    configuration that lies in a folder. Raises `ValueError` that begins with the key, a colon and a blank, and
    `ConfigError` with what is wrong with another file."""
