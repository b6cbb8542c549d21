"""What a task knows about the request it makes: its lease, its share of the budget."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from bridge.domain.errors import LeaseLost


@dataclass(slots=True)
class LeaseDeadline:
    """Until when a lease is surely held: whoever works under it asks nobody anything beyond that.

    A process that was paused may wake while another one does its work. What it would write is refused by the fencing
    token; what it would ask a provider is not, and would be one request too many.
    """

    name: str
    until: float
    """By the monotonic clock: when the lease was last asked for, and its ttl, which the store counts from later on."""
    within: LeaseDeadline | None = None
    """Another one without which this one is worth nothing."""

    def check(self, now: float) -> None:
        """Raise `LeaseLost` when it, or what it is within, is over."""
        if self.within is not None:
            self.within.check(now)
        if now >= self.until:
            raise LeaseLost(f"the lease {self.name} was not renewed in time: nothing is done under it any more")


TENURE: ContextVar[LeaseDeadline | None] = ContextVar("TENURE", default=None)
"""The lease under which the present task works; None is under none."""


class QuotaShare(Protocol):
    """How much of an account's budget of requests is this process's, while others may use the account as well."""

    async def current_rate(self) -> float:
        """Return how many requests a second may be made at most; infinite is: as many as the budget has."""
        ...


SHARE: ContextVar[QuotaShare | None] = ContextVar("SHARE", default=None)
"""The share by which the present task asks its provider; None is all of the budget."""
