"""Deliveries that end without being sent, or wait for a time: what a store keeps of them, and of their totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bridge.domain.event import Position

MAX_TOTALLED_TOPICS = 128
"""Topics that totals name; events of further ones are counted without their topic."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """Why and when a delivery was ended without being sent."""

    kind: Literal["expired", "muted"]
    """It was older than the sink's `max_age`, or an operator had muted it."""
    at: float
    """Seconds since 1970."""
    mute: str = ""
    """Of a muted one, the id of the mute."""


@dataclass(frozen=True, slots=True)
class UnsentDelivery:
    """A delivery that is ended, with what totals say of its event."""

    position: Position
    topic: str = ""
    recorded: float | None = None
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class ExpiryTotals:
    """What has expired at a sink, and is to be told in one event."""

    id: str
    """The same until the totals are closed."""
    count: int
    oldest: float | None = None
    """When the first of these events was recorded, in seconds since 1970."""
    newest: float | None = None
    topics: Mapping[str, int] = field(default_factory=dict)
    """How many there were of each topic."""


class UnsentStore(Protocol):
    """The part of a sink's books that tells what was not sent. Every method raises `Unavailable` without the store."""

    async def wait_until(self, sink: str, dues: Sequence[tuple[Position, float]]) -> None:
        """Have claimed deliveries wait, each until its time; no try is counted, and what is not waiting is left alone.

        A delivery that is held behind another one of its partition is left alone, too.
        """
        ...

    async def end_unsent(
        self, sink: str, deliveries: Sequence[UnsentDelivery], unsent: Unsent, *, is_totalled: bool = False
    ) -> int:
        """End waiting deliveries without sending them; return how many there were.

        Those that expired are counted as `expired`, those that were muted as `filtered`. What is not waiting is left
        alone. `is_totalled` adds them to the totals that `open_totals` returns, in the same step.
        """
        ...

    async def unsent(self, sink: str, position: Position) -> Unsent | None:
        """Return why a delivery was ended unsent; None if it was not, or if its entry has left the journal."""
        ...

    async def open_totals(self, sink: str, id: str) -> ExpiryTotals | None:  # noqa: A002 - what the totals call it
        """Return totals to tell: those that were opened before and not closed, or what has come since, as `id`.

        Opened totals do not grow. None if nothing is to be told.
        """
        ...

    async def close_totals(self, sink: str, id: str) -> None:  # noqa: A002 - what the totals call it
        """Note that the totals with this id were told; told again, it changes nothing."""
        ...
