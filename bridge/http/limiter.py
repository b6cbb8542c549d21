"""The budget of requests of one account."""

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


# --- the budget -------------------------------------------------------------------------------------------------------


class RequestSlot:
    """One request's place in a budget: granted, then on its way, then answered. What is said twice is said once."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def sent(self) -> None:
        """Note that the request is on its way."""
        self._limiter._leaves(self)  # noqa: SLF001 - the two are one thing

    def answered(self) -> None:
        """Note that it has arrived, for the answer has begun."""
        self._limiter._answered(self)  # noqa: SLF001 - the two are one thing

    def release(self) -> None:
        """Note that nobody waits for it any more; what has left without an answer may arrive still."""
        self._limiter._ends(self)  # noqa: SLF001 - the two are one thing


class Limiter:
    """A budget of requests, first come first served, for all that use one account.

    In no window of one second do more than `rate` requests arrive (of a rate with a fraction: never more than its next
    whole number, and below 1/s one in 1/`rate` seconds). Up to 100/s they are evenly spaced. When a request arrived is
    the far side's to know: it is after it left, which is after its connection was opened, and before its answer came.
    So a second goes by between one's answer and the leaving of the one that takes its place, and a packet that the
    network lost, or a process that was stopped for a moment, moves nothing into a second that is full. An answer may
    take its time, though: a request on its way counts as arrived after one second.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError("a rate is a number above 0")
        self._clock = clock
        self._turn = asyncio.Lock()
        self._quiet_until = -math.inf
        self._granted = -math.inf
        self._freed = asyncio.Event()
        self._share = math.inf
        self._pending: set[RequestSlot] = set()
        self._under_way: dict[RequestSlot, float] = {}
        """When each left, oldest first."""
        self._arrivals: deque[float] = deque()
        """When the others arrived at the latest, oldest first; those that matter still."""
        self.rate = rate
        self._reckon()

    def _reckon(self) -> None:
        rate = min(self.rate, self._share)
        self._capacity = max(1, int(rate))
        self._window = self._capacity / rate * RATE_WINDOW_SECONDS
        self._spacing = 1 / rate if rate <= _EVEN_SPACING_LIMIT else 0.0

    def lower_rate(self, rate: float) -> None:
        """Lower the budget to `rate` if it is higher: of several users of an account the most careful one decides."""
        if rate < self.rate:
            self.rate = rate
            self._reckon()

    def pause(self, seconds: float) -> None:
        """Start nothing for `seconds`: the far side asked for quiet."""
        self._quiet_until = max(self._quiet_until, self._clock.monotonic() + seconds)

    async def start(self) -> None:
        """Return when a request may start, and count it as arrived at once; raises as `turn` does."""
        (await self.acquire()).release()

    async def acquire(self, share: QuotaShare | None = None) -> RequestSlot:
        """Return when a request may be begun; its turn is to be told when it leaves and, in any case, its end.

        No more than the `share` is used meanwhile. Raises `Throttled` at once instead of waiting out a pause of more
        than a few seconds.
        """
        async with self._turn:
            while (wait := await self._wait_within(share)) > 0:
                if math.isinf(wait):
                    self._freed.clear()
                    await self._freed.wait()
                else:
                    await self._clock.sleep(wait)
            self._granted = self._clock.monotonic()
            turn = RequestSlot(self)
            self._pending.add(turn)
            return turn

    def _leaves(self, turn: RequestSlot) -> None:
        if turn in self._pending:
            self._pending.remove(turn)
            self._under_way[turn] = self._clock.monotonic()
            self._freed.set()

    def _answered(self, turn: RequestSlot) -> None:
        if self._under_way.pop(turn, None) is not None:
            self._arrivals.append(self._clock.monotonic())

    def _ends(self, turn: RequestSlot) -> None:
        if turn in self._pending:
            self._leaves(turn)
            self._answered(turn)

    async def _wait_within(self, share: QuotaShare | None) -> float:
        if share is not None and (allowed := await share.current_rate()) != self._share:
            self._share = allowed
            self._reckon()
        return self._wait()

    def _wait(self) -> float:
        """Return for how many seconds nothing can be begun; infinite until one that is pending has left.

        It is the least that is known now: while one is under way, the second behind it has not begun.
        """
        now = self._clock.monotonic()
        quiet = self._quiet_until - now
        if quiet > _MAX_WAIT_SECONDS:
            raise Throttled("the account was asked for quiet: no request until then", retry_after=quiet)
        self._look_back(now)
        wait = max(quiet, self._granted + self._spacing - now)
        ahead = len(self._arrivals) + len(self._under_way) + len(self._pending) - self._capacity
        if ahead < 0:
            return wait
        if ahead < len(self._arrivals):
            return max(wait, self._arrivals[ahead] + self._window - now)
        if ahead < len(self._arrivals) + len(self._under_way):
            return max(wait, self._window)
        return math.inf

    def _look_back(self, now: float) -> None:
        """Count as arrived what is long under way, and forget what no window reaches any more."""
        while self._under_way and (left := next(iter(self._under_way.values()))) <= now - ASSUMED_ARRIVAL_SECONDS:
            del self._under_way[next(iter(self._under_way))]
            insort(self._arrivals, left + ASSUMED_ARRIVAL_SECONDS)
        while self._arrivals and self._arrivals[0] <= now - self._window:
            self._arrivals.popleft()


_limiters: WeakValueDictionary[tuple[str, Clock], Limiter] = WeakValueDictionary()


def account_key(origin: str, secret: str) -> str:
    """Return a name for an account at an origin from which its secret cannot be read."""
    return f"{URL(origin).origin()} {hashlib.sha256(secret.encode()).hexdigest()[:16]}"


def shared_limiter(account: str, rate: float, clock: Clock) -> Limiter:
    """Return the one limiter of an account in this process; the lowest rate that anybody asked for holds."""
    limiter = _limiters.get((account, clock))
    if limiter is None:
        limiter = Limiter(rate, clock)
        _limiters[account, clock] = limiter
    limiter.lower_rate(rate)
    return limiter
