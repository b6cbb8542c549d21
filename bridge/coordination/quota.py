"""The request budget of one account, kept by all processes that use it: the service that polls, and a command.

A process that uses an account holds a lease that says so. The service has one for the source, or for the account if
several sources share it, so that one process polls them all; a command has another one. Each reads whether the other's
lease is held, and relies on that for no more than a second. If both are held, each uses its own part of the budget. The
one that comes second first waits until the requests are over that the other may have begun with the whole budget.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.ledger import Lease, Ledger
from bridge.protocols.source import ASSUMED_ARRIVAL_SECONDS, RATE_WINDOW_SECONDS, HasAccount, Source

_KNOWN_FOR_SECONDS = 1.0
_QUIET = "quiet"
"""In the report of a lease's name: the token of the last holder that gave it back with no request under way."""


def cooldown(rate: float) -> float:
    """Return after how many seconds nothing that was asked before counts any more in a budget of `rate` a second."""
    return RATE_WINDOW_SECONDS * max(1.0, 1.0 / rate) + ASSUMED_ARRIVAL_SECONDS


async def takeover_cooldown(ledger: Ledger, lease: Lease, rate: float) -> float:
    """Return for how many seconds a new lease holder sends no request.

    The holder before may have asked until the very end, in another process with a budget of its own: the account's
    budget is kept over both. The first holder of all need not wait, nor does one whose predecessor has noted that its
    requests count no more.
    """
    if lease.token == 1:
        return 0.0
    try:
        note = (await ledger.statuses(lease.name)).get(lease.name, {})
    except Unavailable:
        return cooldown(rate)
    return 0.0 if note.get(_QUIET) == str(lease.token - 1) else cooldown(rate)


async def note_quiet(ledger: Ledger, lease: Lease) -> None:
    """Note for the next holder of a lease that no request of this one counts any more.

    The note names the token: a holder in between makes it worthless, and so does one that ended without a word.
    """
    with suppress(Unavailable):  # then the next holder waits
        await ledger.set_status(lease.name, {_QUIET: str(lease.token)})


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
    """Return the lease that says which command asks the provider while that process runs."""
    return f"beside/{min(names)}"  # the lease's name in the store


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
        self._reading = asyncio.Lock()
        self._read_at = -math.inf
        self._theirs_until = -math.inf

    @classmethod
    def for_service(cls, ledger: Ledger, clock: Clock, names: Sequence[str], rate: float) -> SharedQuota:
        """Return the share of the process that polls these sources of one account."""
        return cls(ledger, clock, command_lease(names), rate=rate, part=rate - _smaller_half(rate))

    @classmethod
    def for_command(cls, ledger: Ledger, clock: Clock, names: Sequence[str], rate: float) -> SharedQuota:
        """Return the share of a command that runs while the service runs."""
        return cls(ledger, clock, polling_lease(names), rate=rate, part=_smaller_half(rate))

    def change_rate(self, rate: float) -> None:
        """Have the service's share of a budget of another rate from now on."""
        self._quiet, self._part = cooldown(rate), rate - _smaller_half(rate)

    async def current_rate(self) -> float:
        """Return how many requests a second may be made at most; infinite while the other side is not there."""
        now = self._clock.monotonic()
        if now >= self._read_at + _KNOWN_FOR_SECONDS:
            async with self._reading:
                now = self._clock.monotonic()
                if now >= self._read_at + _KNOWN_FOR_SECONDS:
                    await self._read(now)
        return self._part if self._clock.monotonic() < self._theirs_until else math.inf

    async def entry_delay(self) -> float:
        """Return for how many seconds nothing may be asked at first, once one's own lease is held."""
        now = self._clock.monotonic()
        await self._read(now)
        return _KNOWN_FOR_SECONDS + self._quiet if now < self._theirs_until else 0.0

    async def _read(self, now: float) -> None:
        try:
            there = await self._ledger.holder(self._other) is not None
        except Unavailable:
            there = True
        self._read_at = now
        if there:
            # They may ask until their lease ends, at most until the next look, and what they asked counts for longer.
            self._theirs_until = self._clock.monotonic() + _KNOWN_FOR_SECONDS + self._quiet


def _smaller_half(rate: float) -> float:
    """Return a half in whole requests a second, so that two parts are no more than the whole in any second."""
    return rate // 2 if rate >= 2 else rate / 2  # noqa: PLR2004 - a whole request for each
