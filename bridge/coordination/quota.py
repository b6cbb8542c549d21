"""One account's budget of requests, kept by all processes that use it: the service that polls, and a command beside it.

Whoever uses an account holds a lease that says so: the service one for the source, or for the account where several
sources share it, so that one process polls them all; a command beside it another one. Each looks whether the other's
lease is held, and acts upon what it saw for no more than a second. Who finds the other there uses its own part of the
budget; who comes second waits until what the first may have begun with the whole of it is over.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.ledger import Lease, Ledger
from bridge.protocols.source import ASSUMED_ARRIVAL_SECONDS, RATE_WINDOW_SECONDS, HasAccount, Source

_KNOWN_FOR = 1.0


def cooldown(rate: float) -> float:
    """Return after how many seconds nothing that was asked before counts any more in a budget of `rate` a second."""
    return RATE_WINDOW_SECONDS * max(1.0, 1.0 / rate) + ASSUMED_ARRIVAL_SECONDS


def takeover_cooldown(lease: Lease, rate: float) -> float:
    """Return for how many seconds whoever has just taken a lease asks nothing.

    The holder before may have asked until the very end, in another process with a budget of its own: the account's
    budget is kept over both. The first holder of all need not wait.
    """
    return cooldown(rate) if lease.token > 1 else 0.0


def accounts(sources: Mapping[str, Source]) -> Sequence[tuple[str, ...]]:
    """Return the names of the sources, together where they share an account."""
    groups: dict[str, list[str]] = {}
    for name, source in sources.items():
        groups.setdefault(source.account if isinstance(source, HasAccount) else f"source {name}", []).append(name)
    return [tuple(names) for names in groups.values()]


def polling_lease(names: Sequence[str]) -> str:
    """Return the lease that says which process polls the sources of an account."""
    return f"source/{names[0]}" if len(names) == 1 else f"account/{min(names)}"


def command_lease(names: Sequence[str]) -> str:
    """Return the lease that says which command asks the provider beside that process."""
    return f"beside/{min(names)}"


class SharedQuota:
    """What this process may use of a budget of `rate` a second, while another one may hold the lease `other`.

    `part` is what it may use while the other side is there, in requests a second. A store that does not answer counts
    as if it were.
    """

    def __init__(self, ledger: Ledger, clock: Clock, other: str, *, rate: float, part: float) -> None:
        self._ledger = ledger
        self._clock = clock
        self._other = other
        self._quiet = cooldown(rate)
        self._part = part
        self._looking = asyncio.Lock()
        self._looked = -math.inf
        self._theirs_until = -math.inf

    @classmethod
    def for_service(cls, ledger: Ledger, clock: Clock, names: Sequence[str], rate: float) -> SharedQuota:
        """Return the share of whoever polls these sources of one account."""
        return cls(ledger, clock, command_lease(names), rate=rate, part=rate - _smaller_half(rate))

    @classmethod
    def for_command(cls, ledger: Ledger, clock: Clock, names: Sequence[str], rate: float) -> SharedQuota:
        """Return the share of a command beside the service."""
        return cls(ledger, clock, polling_lease(names), rate=rate, part=_smaller_half(rate))

    async def current_rate(self) -> float:
        """Return how many requests a second may be made at most; infinite while the other side is not there."""
        now = self._clock.monotonic()
        if now >= self._looked + _KNOWN_FOR:
            async with self._looking:
                now = self._clock.monotonic()
                if now >= self._looked + _KNOWN_FOR:
                    await self._look(now)
        return self._part if self._clock.monotonic() < self._theirs_until else math.inf

    async def entry_delay(self) -> float:
        """Return for how many seconds nothing may be asked at first, once one's own lease is held."""
        now = self._clock.monotonic()
        await self._look(now)
        return _KNOWN_FOR + self._quiet if now < self._theirs_until else 0.0

    async def _look(self, now: float) -> None:
        try:
            there = await self._ledger.holder(self._other) is not None
        except Unavailable:
            there = True
        self._looked = now
        if there:
            # They may ask until their lease ends, at most until the next look, and what they asked counts for longer.
            self._theirs_until = self._clock.monotonic() + _KNOWN_FOR + self._quiet


def _smaller_half(rate: float) -> float:
    """Return a half in whole requests a second, so that two parts are no more than the whole in any second."""
    return rate // 2 if rate >= 2 else rate / 2  # noqa: PLR2004 - a whole request for each
