"""What each sink took, waits for, or gave up on: deliveries with due times, kept in the store and not in a worker."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.domain.event import Position, WireEvent
from bridge.protocols.unsent import UnsentStore

RELAY_SINK = "@relay"
"""The sink under whose name the relay keeps its dead letters; no sink of a configuration can have this name."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try that failed."""

    at: float
    """Seconds since 1970."""
    error: str
    """Fit for a log."""
    kind: str = "transient"
    """`transient` or `permanent`."""


MAX_ANSWER_BYTES = 2048
"""Bytes of an endpoint's answer that a dead letter keeps."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What the endpoint answered to the attempt that made a dead letter, redacted to the sink's privacy."""

    status: int
    """The HTTP status."""
    body: str
    """At most `MAX_ANSWER_BYTES` of it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one sink."""

    sink: str
    position: Position
    due: float
    """Seconds since 1970 at which it may be claimed; for a claimed one, when the claim expires."""
    attempts: tuple[Attempt, ...] = ()
    state: str = "waiting"
    """`waiting` (due, claimed or between two tries) or `dead`."""
    reason: str = ""
    """Of a dead one: `permanent`, `exhausted`, `malformed`, `expired`; of the relay: `refused` by the broker."""
    answer: KeptAnswer | None = None
    """Of a dead one, if its endpoint had answered."""

    @property
    def place(self) -> Place:
        """Where it stands in a list."""
        return self.due, self.position


Place = tuple[float, Position]
"""The place of a delivery in a list: when it is due, and among those due at one time its position."""


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """An event that a sink's queue brought, to be accepted."""

    position: Position
    partition: str | None = None
    """The partition key, for a sink that keeps order."""


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """The books of one sink and one source."""

    delivered: int = 0
    waiting: int = 0
    dead: int = 0
    discarded: int = 0
    filtered: int = 0
    """Events of the sink's topics that its filter did not select, or that an operator had muted."""
    expired: int = 0
    """Events that were older than the sink's `max_age` when they would have been sent."""


class DeliveryStore(UnsentStore, Protocol):
    """Deliveries of all sinks. Every method raises `Unavailable` when the store cannot be reached.

    A delivery is in one of four states: unknown, waiting, dead, settled. Only `take` and `offer` make one, and only
    from unknown; `settle`, `discard` and `end_unsent` end one for good, until `replay` makes it unknown again.
    """

    async def accept(self, sink: str, arrivals: Sequence[NewDelivery], until: float) -> Sequence[Position]:
        """Accept arrivals that are unknown so far and claim them until `until`; return the claimed ones.

        Idempotent: what is waiting, dead or settled is left alone and not returned. An arrival with a partition whose
        earlier deliveries are not settled is accepted, but not claimed. Partitions keep the order of arrival.
        """
        ...

    async def enqueue(self, sink: str, arrivals: Sequence[NewDelivery], due: float) -> int:
        """Take charge as `take` does, but claim nothing: the deliveries are due at `due`. Return how many were new."""
        ...

    async def filter_out(self, sink: str, positions: Sequence[Position]) -> int:
        """Note that the sink's filter did not select these; return how many were unknown so far.

        What is waiting, dead or settled is left alone. Those noted count as settled, and apart from those delivered.
        """
        ...

    async def filtered(self, sink: str, position: Position) -> bool:
        """Say whether the sink's filter did not select it, or an operator had muted it."""
        ...

    async def claim(self, sink: str, now: float, until: float, limit: int) -> Sequence[Delivery]:
        """Claim up to `limit` deliveries that are due at `now`, those due longest first, until `until`."""
        ...

    async def extend(self, sink: str, positions: Sequence[Position], until: float) -> None:
        """Hold the claims on these until `until`; what is not waiting any more is left alone.

        With a time that has come, they are given back: due at once, and no try is counted.
        """
        ...

    async def settle(self, sink: str, positions: Sequence[Position]) -> int:
        """Note that the endpoint accepted these; return how many deliveries behind them in a partition became due."""
        ...

    async def postpone(self, sink: str, position: Position, due: float, attempt: Attempt | None) -> None:
        """Wait until `due`; `attempt` is added to the history (None for a claim handed back unused).

        Told twice in a row, because the answer was lost, an attempt is one attempt.
        """
        ...

    async def dead_letter(
        self, sink: str, position: Position, reason: str, attempt: Attempt | None, answer: KeptAnswer | None = None
    ) -> int:
        """Make a dead letter of it, with its history and the endpoint's answer.

        Returns how many in its partition became due, as `settle`.
        """
        ...

    async def unaccounted(self, sink: str, source: str, seqs: Sequence[int]) -> Sequence[int]:
        """Return those of `seqs` that are unknown: neither waiting, dead nor settled."""
        ...

    async def counts(self, sink: str) -> dict[str, DeliveryCounts]:
        """Return the books of a sink by source; a source without any delivery is left out."""
        ...

    async def oldest(self, sink: str, source: str) -> int | None:
        """Return the lowest number of a source that this sink waits with, None when none waits; not cheap."""
        ...

    async def next_due(self, sink: str) -> float | None:
        """Return when the next delivery is due, None when none waits."""
        ...

    async def deliveries(
        self,
        sink: str,
        *,
        states: Collection[str] = ("waiting", "dead"),
        limit: int = 100,
        after: Place | None = None,
    ) -> Sequence[Delivery]:
        """Return waiting and dead deliveries, those due first at the front, from behind `after` on.

        Those that are due at one time always come in the same order. What moves while a caller reads on may be missed.
        """
        ...

    async def delivery(self, sink: str, position: Position) -> Delivery | None:
        """Return one waiting or dead delivery."""
        ...

    async def settled(self, sink: str, position: Position) -> bool:
        """Say whether it is over: the endpoint accepted it, or it ended without being sent."""
        ...

    async def redrive(self, sink: str, positions: Sequence[Position], due: float, hold: float = 0.0) -> int:
        """Make dead or waiting deliveries due at `due`, with the count of tries starting again; return how many.

        A claim ends, and a wait is over, at a time, and the store does not tell one from the other. One whose time
        comes within `hold` seconds after `due` therefore keeps it: with `hold` at least as long as claims last, nothing
        is given to a second process while a first one sends it.
        """
        ...

    async def discard(self, sink: str, positions: Sequence[Position]) -> int:
        """End waiting or dead deliveries without sending them; return how many."""
        ...

    async def replay(self, sink: str, arrivals: Sequence[NewDelivery], due: float) -> int:
        """Make settled (or unknown) events due once more; return how many. Waiting and dead ones are left alone."""
        ...

    async def low_watermark(self, sink: str, source: str) -> int:
        """Return the number up to which the books of this sink were found complete; 0 at first."""
        ...

    async def raise_low_watermark(self, sink: str, source: str, upto: int) -> None:
        """Note that everything up to `upto` is accounted for; never moves back."""
        ...

    async def accept_foreign(self, sink: str, event: WireEvent) -> Position:
        """Keep an event that came without a position of ours (another publisher's, a malformed one).

        Idempotent by the event's id. The position's source is `@SINK`, and `Ledger.entries` finds it.
        """
        ...

    async def forget(self, source: str, before: int) -> None:
        """Drop the settled marks of numbers below `before`, which the journal no longer keeps."""
        ...
