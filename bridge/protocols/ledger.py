"""What the bridge remembers of its sources: last statuses, cursors, leases, and the journal of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from bridge.domain.event import JournalEntry, Position, WireEvent


class Key(NamedTuple):
    """A resource in the ledger: the scope is kept and expires as one."""

    scope: str
    name: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for one source (or another named thing) until somebody else takes it.

    `token` is the fencing token: it grows with every new holder, and every commit checks it.
    """

    name: str
    owner: str
    token: int
    ttl: float
    """Seconds after which the lease ends unless it is renewed."""


class StatusChange(NamedTuple):
    """A resource's history as it was read, and as it shall be."""

    key: Key
    expected: str | None
    history: str


class Expectation(NamedTuple):
    """A resource that should have a final status by a time."""

    key: Key
    due: int
    """Seconds since 1970."""
    seq: int
    """The number of the resource's last event in the journal. In a commit, a negative one is that of an event of this
    very commit, counted from its end as Python does: -1 is the last."""


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one page leads to; written as one, or not at all."""

    source: str
    statuses: Sequence[StatusChange] = ()
    events: Sequence[WireEvent] = ()
    cursor: Mapping[str, str | None] = field(default_factory=dict)
    retention: float = 30 * 86400.0
    """Seconds for which the statuses are kept after they were last read or written."""
    expected: Sequence[Expectation] = ()
    """Resources that wait for a final status. One that does already keeps its time, and gets the new number."""
    met: Sequence[Key] = ()
    """Resources that wait for a final status no longer."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """How far a source's journal reaches; numbers follow each other without gaps.

    A new journal begins where no earlier one of that name can have ended: a store that was reset never gives a
    number twice, for brokers and sinks may still know the first event that had it.
    """

    base: int = 0
    """The number before the first event that there ever was; 0 when there was none."""
    committed: int = 0
    """The number of the last event; `base` when there was none."""
    confirmed: int = 0
    """The broker holds everything up to here."""
    first: int = 1
    """The oldest event still kept; beyond `committed` when none is."""
    unroutable: int = 0
    """How many confirmed events no queue wanted; they stay in the journal like the others."""
    bytes: int = 0
    """Roughly what the kept events take."""

    @property
    def events(self) -> int:
        """How many events were committed so far."""
        return self.committed - self.base

    @property
    def backlog(self) -> int:
        """How many events wait for the broker's confirmation."""
        return self.committed - self.confirmed


def new_base(epoch: float) -> int:
    """Return where a journal that is made now begins: beyond all that 256,000 events a second could have reached."""
    return int(epoch * 1000) << 8


class Ledger(Protocol):
    """The memory of the bridge. Every method raises `Unavailable` when the store cannot be reached.

    All writes are durable when the call returns, as far as the store's own configuration makes them so.
    """

    # leases

    async def acquire(self, name: str, owner: str, ttl: float) -> Lease | None:
        """Take the lease if it is free or already `owner`'s; the token is new unless it was already held."""
        ...

    async def renew(self, lease: Lease) -> None:
        """Hold the lease for another `ttl`; raises `LeaseLost` if it has ended or somebody else has it."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the lease back at once; nothing happens if it was lost."""
        ...

    async def holder(self, name: str) -> str | None:
        """Return the owner of a lease that is held now."""
        ...

    # statuses, cursor

    async def last_seen(self, source: str, keys: Sequence[Key], retention: float) -> Sequence[str | None]:
        """Return the history of each key in order, None if there is none, and keep their scopes for `retention`."""
        ...

    async def scope(self, source: str, scope: str) -> Mapping[str, str]:
        """Return the histories of all resources of a scope by name, for the books; nothing is kept longer by it.

        A name of more than 20 characters that is no number may come as a digest, beginning with `#`.
        """
        ...

    async def cursor(self, source: str) -> dict[str, str]:
        """Return all entries of the source's cursor."""
        ...

    async def commit(self, lease: Lease | None, commit: Commit) -> int:
        """Write statuses, events and cursor as one; return the number of the journal's last event.

        Raises `LeaseLost` if the lease's token is not the current one any more, and `Conflict` if a status is not the
        one that was expected; in both cases nothing was written. Without a lease only `Conflict` protects.
        """
        ...

    # resources that wait for a final status

    async def expectations(self, source: str, upto: float, limit: int) -> Sequence[Expectation]:
        """Return up to `limit` expectations that are due at `upto` or before, in no certain order."""
        ...

    async def next_expectation(self, source: str) -> float | None:
        """Return a time before which no expectation is due, None if there is none.

        `expectations` with a later time makes the answer exact.
        """
        ...

    async def count_expectations(self, source: str) -> int:
        """Return how many resources wait for a final status; not cheap."""
        ...

    async def drop_expectations(self, lease: Lease, source: str) -> None:
        """Forget all expectations of a source. Raises `LeaseLost` as `commit` does."""
        ...

    # journal

    async def sources(self) -> Sequence[str]:
        """Return the names of all sources that have a journal or a cursor, in alphabetical order."""
        ...

    async def journal(self, source: str) -> JournalState:
        """Return how far the journal reaches."""
        ...

    async def read(self, source: str, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return up to `limit` kept entries with numbers above `after`, in order."""
        ...

    async def entries(self, positions: Sequence[Position]) -> Sequence[JournalEntry | None]:
        """Return the entries at `positions` in order; None where one is no longer kept."""
        ...

    async def confirm(self, lease: Lease, source: str, upto: int, unroutable: int = 0) -> None:
        """Note that the broker holds everything up to `upto`, and how many of it no queue wanted.

        Never moves back. Raises `LeaseLost` as `commit` does.
        """
        ...

    async def trim(self, source: str, before: int) -> int:
        """Forget entries with numbers below `before`, never unconfirmed ones; return how many were forgotten."""
        ...

    async def reset_source(self, lease: Lease, source: str) -> None:
        """Forget a source's cursor, statuses and watched resources; its journal stays, with what is not published yet.

        The cursor goes last: until then a repeated call does the rest. Raises `LeaseLost` as `commit` does.
        """
        ...

    # what operators ask for, and what runs tell

    async def watch(self, source: str, resource: str) -> bool:
        """Follow a resource; False if it was already followed."""
        ...

    async def unwatch(self, source: str, resource: str) -> bool:
        """Follow a resource no longer; False if it was not followed."""
        ...

    async def watched(self, source: str) -> Sequence[str]:
        """Return the resources that operators named, sorted."""
        ...

    async def set_status(self, name: str, values: Mapping[str, str]) -> None:
        """Merge `values` into what a part (`source/NAME`, `sink/NAME`) tells about itself, for other processes to read.

        Names that are not among `values` keep what they had.
        """
        ...

    async def statuses(self, prefix: str) -> Mapping[str, Mapping[str, str]]:
        """Return what parts have told about themselves, by name."""
        ...

    async def ping(self) -> None:
        """Return if the store answers and can be written to; one that was emptied gets its mark again."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...
