"""The hints of one source as its poller takes them: read from the store, within a part of the account's budget."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.hints import Hint, HintStore

log = structlog.get_logger()

MAX_HINTS = 5000
"""Things of one source that may have a hint; a push about a further one is refused, and the regular polls find it."""
_BUDGET_SHARE = 0.5
"""The part of an account's requests that hints may spend."""
_BURST_SECONDS = 2.0
"""Seconds whose share may be spent at once."""
_STORE_CHECK_SECONDS = 0.5
"""Seconds between two questions to the store, for hints that another process has stored."""


class HintBudget:
    """What the hints of one account may spend: half of its requests, however much is pushed.

    It runs into debt by the cost of the last poll, which is known only afterwards; then the next one waits.
    """

    def __init__(self, clock: Clock, rate: float) -> None:
        """Take the rate of the whole account in requests a second."""
        self._clock = clock
        self._rate = rate * _BUDGET_SHARE
        self._most = max(1.0, self._rate * _BURST_SECONDS)
        self._credit = self._most
        self._at = clock.monotonic()

    def credit(self) -> float:
        """Return how many requests may be made now."""
        now = self._clock.monotonic()
        self._credit = min(self._most, self._credit + (now - self._at) * self._rate)
        self._at = now
        return self._credit

    def spend(self, requests: float) -> None:
        """Note what was made."""
        self._credit = self.credit() - requests


@dataclass(slots=True)
class PollHints:
    """The hints that one poll looks at."""

    hints: Sequence[Hint] = ()
    early: bool = False
    """Whether the poll is only made for them, between two regular ones."""
    things: Mapping[str, datetime] = field(default_factory=dict)
    """Each thing, with the time of its first push."""


class HintQueue:
    """Wakes the poller of one source when it was pushed to, and gives out hints as fast as the budget allows.

    A hint is dropped only after the poll that looked at its thing was committed: a crash before that repeats the look.
    """

    def __init__(self, source: str, store: HintStore, clock: Clock, budget: HintBudget, wake: asyncio.Event) -> None:
        """Prepare; `wake` is set when this process itself has stored a hint."""
        self._source = source
        self._store = store
        self._clock = clock
        self._budget = budget
        self._wake = wake
        self._is_early = False
        self._spent_said = False

    async def wait(self, stop: asyncio.Event, seconds: float, changed: asyncio.Event) -> None:
        """Wait for `seconds`, or until `stop` or `changed` is set, or there are hints that may be looked at now."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0 and not stop.is_set() and not changed.is_set():
            if await self._is_due():
                self._is_early = True
                return
            await self._pause(stop, min(left, _STORE_CHECK_SECONDS), changed)
        changed.clear()

    async def _pause(self, stop: asyncio.Event, seconds: float, changed: asyncio.Event) -> None:
        """Wait for `seconds`, or for one of the events, or for a push to this process while it may be looked at."""
        events = [stop, changed] if self._budget.credit() < 1 else [stop, changed, self._wake]
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in events]
        waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self._wake.clear()

    async def _is_due(self) -> bool:
        try:
            waiting = await self._store.count_hints(self._source)
        except Unavailable:
            return False  # the next regular poll says so
        may = self._budget.credit() >= 1
        if waiting and not may:
            self._report(waiting)
        elif not waiting:
            self._spent_said = False
        return waiting > 0 and may

    def _report(self, waiting: int) -> None:
        if self._spent_said:
            return
        self._spent_said = True
        log.warning(
            "push.budget_spent", source=self._source, waiting=waiting,
            consequence="pushes spend half of the account's requests at most: the others wait; the polls go on",
        )  # fmt: skip

    async def take(self) -> PollHints:
        """Return the hints for the poll that begins now; raises `Unavailable`."""
        early, self._is_early = self._is_early, False
        room = int(self._budget.credit())
        hints = await self._store.hints(self._source, room) if room >= 1 else ()
        things = {hint.thing: datetime.fromtimestamp(hint.since, UTC) for hint in hints}
        return PollHints(hints, early, things)

    def spend(self, chosen: PollHints, requests: int) -> None:
        """Charge the requests of a poll: all of an early one, and of a regular one a request for each hint."""
        if chosen.early:
            self._budget.spend(max(1, requests))
        elif chosen.hints:
            self._budget.spend(len(chosen.hints))

    async def settle(self, chosen: PollHints, left: Collection[str]) -> None:
        """Drop the hints of a poll that was committed, without those that it had no time for; raises `Unavailable`."""
        await self._store.drop_hints(self._source, [hint for hint in chosen.hints if hint.thing not in left])
