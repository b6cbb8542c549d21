"""The budget of requests of one account, shared by all clients that ask it."""

from __future__ import annotations

import asyncio
import hashlib
import math
from bisect import insort
from collections import deque
from weakref import WeakValueDictionary

from yarl import URL

from bridge.domain.clock import Clock
from bridge.http.errors import Throttled
from bridge.protocols.request_context import QuotaShare
from bridge.protocols.source import ASSUMED_ARRIVAL_SECONDS, RATE_WINDOW_SECONDS

_MAX_WAIT_SECONDS = 5.0
_EVEN_SPACING_LIMIT = 100.0
"""Requests a second up to which they are spaced evenly."""


class RequestSlot:
    """One request's slot in a budget: granted, then sent, then answered. A call repeated has no effect."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def sent(self) -> None:
        """Note that the request leaves now."""
        self._limiter._on_sent(self)  # noqa: SLF001 - the two are one thing

    def answered(self) -> None:
        """Note that the request has arrived, because its answer has begun."""
        self._limiter._on_answered(self)  # noqa: SLF001 - the two are one thing

    def release(self) -> None:
        """Note that nobody waits for the request any more; one that left without an answer may still arrive."""
        self._limiter._on_released(self)  # noqa: SLF001 - the two are one thing


class Limiter:
    """A budget of requests, first come first served, for all that use one account.

    In no window of one second do more than `rate` requests arrive. A rate with a fraction allows its next whole number
    in some seconds, and one below 1/s allows one request in 1/`rate` seconds. Up to 100/s, requests are evenly spaced.

    Only the provider knows when a request arrived: after it left, which is after its connection was opened, and before
    its answer came. So the request that takes another one's place leaves a second after that one's answer. A packet
    that the network lost, or a process that was stopped for a moment, then moves nothing into a second that is full. A
    slow answer does not block the budget: a request on its way counts as arrived after one second.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError("a rate is a number above 0")
        self._clock = clock
        self._queue = asyncio.Lock()
        self._quiet_until = -math.inf
        self._granted_at = -math.inf
        self._changed = asyncio.Event()
        self._share = math.inf
        self._pending: set[RequestSlot] = set()
        self._in_flight: dict[RequestSlot, float] = {}
        """When each request left, oldest first."""
        self._arrivals: deque[float] = deque()
        """The latest time at which each other request can have arrived, oldest first; only those that still count."""
        self.rate = rate
        self._recompute()

    def _recompute(self) -> None:
        rate = min(self.rate, self._share)
        self._capacity = max(1, int(rate))
        self._window = self._capacity / rate * RATE_WINDOW_SECONDS
        self._spacing = 1 / rate if rate <= _EVEN_SPACING_LIMIT else 0.0

    def lower_rate(self, rate: float) -> None:
        """Lower the budget to `rate` if it is higher: of several users of an account the most careful one decides."""
        if rate < self.rate:
            self.rate = rate
            self._recompute()

    def set_rate(self, rate: float) -> None:
        """Have a budget of `rate` from now on, as its users changed; what was asked before still counts."""
        self.rate = rate
        self._recompute()

    def pause(self, seconds: float) -> None:
        """Start nothing for `seconds`: the provider asked for a pause."""
        self._quiet_until = max(self._quiet_until, self._clock.monotonic() + seconds)

    async def start(self) -> None:
        """Wait until a request may start, and count it as arrived at once; raises as `acquire` does."""
        (await self.acquire()).release()

    async def acquire(self, share: QuotaShare | None = None) -> RequestSlot:
        """Wait for a slot. The caller must call `sent()` when the request leaves, and `release()` in every case.

        While the caller waits, no more than the `share` of the budget is used. Raises `Throttled` at once instead of
        waiting for the end of a pause of more than a few seconds.
        """
        async with self._queue:
            while (wait := await self._wait_within(share)) > 0:
                if math.isinf(wait):
                    self._changed.clear()
                    await self._changed.wait()
                else:
                    await self._clock.sleep(wait)
            self._granted_at = self._clock.monotonic()
            slot = RequestSlot(self)
            self._pending.add(slot)
            return slot

    def _on_sent(self, slot: RequestSlot) -> None:
        if slot in self._pending:
            self._pending.remove(slot)
            self._in_flight[slot] = self._clock.monotonic()
            self._changed.set()

    def _on_answered(self, slot: RequestSlot) -> None:
        if self._in_flight.pop(slot, None) is not None:
            self._arrivals.append(self._clock.monotonic())

    def _on_released(self, slot: RequestSlot) -> None:
        if slot in self._pending:
            self._on_sent(slot)
            self._on_answered(slot)

    async def _wait_within(self, share: QuotaShare | None) -> float:
        if share is not None and (rate := await share.current_rate()) != self._share:
            self._share = rate
            self._recompute()
        return self._wait()

    def _wait(self) -> float:
        """Return the seconds until a request can begin; infinite until a pending one has left.

        It is the least that is known now: as long as a request is in flight, the second after it has not begun.
        """
        now = self._clock.monotonic()
        quiet = self._quiet_until - now
        if quiet > _MAX_WAIT_SECONDS:
            raise Throttled("the account was asked for quiet: no request until then", retry_after=quiet)
        self._expire(now)
        wait = max(quiet, self._granted_at + self._spacing - now)
        excess = len(self._arrivals) + len(self._in_flight) + len(self._pending) - self._capacity
        if excess < 0:
            return wait
        if excess < len(self._arrivals):
            return max(wait, self._arrivals[excess] + self._window - now)
        if excess < len(self._arrivals) + len(self._in_flight):
            return max(wait, self._window)
        return math.inf

    def _expire(self, now: float) -> None:
        """Count requests that left long ago as arrived, and forget arrivals that no window covers any more."""
        while self._in_flight and (left := next(iter(self._in_flight.values()))) <= now - ASSUMED_ARRIVAL_SECONDS:
            del self._in_flight[next(iter(self._in_flight))]
            insort(self._arrivals, left + ASSUMED_ARRIVAL_SECONDS)
        while self._arrivals and self._arrivals[0] <= now - self._window:
            self._arrivals.popleft()


_limiters: WeakValueDictionary[tuple[str, Clock], Limiter] = WeakValueDictionary()


def account_key(origin: str, secret: str) -> str:
    """Return a name for an account at an origin from which its secret cannot be read."""
    return f"{URL(origin).origin()} {hashlib.sha256(secret.encode()).hexdigest()[:16]}"


def shared_limiter(account: str, rate: float, clock: Clock) -> Limiter:
    """Return the one limiter of an account in this process; the lowest rate that any user asked for holds."""
    limiter = _limiters.get((account, clock))
    if limiter is None:
        limiter = Limiter(rate, clock)
        _limiters[account, clock] = limiter
    limiter.lower_rate(rate)
    return limiter


def change_rate(account: str, rate: float, clock: Clock) -> None:
    """Give the limiter of an account, if it has one in this process, the lowest rate of its present users."""
    if (limiter := _limiters.get((account, clock))) is not None and limiter.rate != rate:
        limiter.set_rate(rate)
