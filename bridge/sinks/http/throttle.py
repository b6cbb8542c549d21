"""How many requests a process sends to one endpoint: evenly spaced, and what has to wait longer waits in the store."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.domain.retry import RETRY_AFTER_CAP

_MAX_WAIT_SECONDS = 5.0
"""Seconds that an event waits for its turn in this process."""
_SPREAD_SECONDS = 900.0
"""Seconds over which deferred events come back: never all of them at once."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class SendTurns:
    """The turns of one endpoint; all times are a clock's monotonic seconds."""

    free: float = 0.0
    """When the next request may leave."""
    promised: float = 0.0
    """When the next deferred event may come back."""


_TURNS: WeakValueDictionary[Hashable, SendTurns] = WeakValueDictionary()


class SendThrottle:
    """Lets requests leave one by one, `rate` a second; all sinks of this process with one key share the turns."""

    def __init__(self, rate: float | None, clock: Clock, key: Hashable) -> None:
        self._interval = 0.0 if rate is None else 1 / rate
        self._clock = clock
        self._turns = _TURNS.setdefault((key, clock), SendTurns())

    async def wait(self) -> None:
        """Return when a request may leave; raises `Transient`, which counts as no attempt, if that is not soon."""
        if not self._interval:
            return
        now, turns = self._clock.monotonic(), self._turns
        turn = max(now, turns.free)
        if turn - now > _MAX_WAIT_SECONDS:
            raise self._deferred(turn, now)
        turns.free = turn + self._interval
        if turn > now:
            await self._clock.sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Let no request leave for so many seconds, at most for a day: the endpoint asked for it."""
        if self._interval:
            self._turns.free = max(self._turns.free, self._clock.monotonic() + min(seconds, RETRY_AFTER_CAP))

    def _deferred(self, turn: float, now: float) -> Transient:
        turns = self._turns
        if not turn <= turns.promised < turn + _SPREAD_SECONDS:
            turns.promised = turn
        after, turns.promised = turns.promised - now, turns.promised + self._interval
        return Transient("more events wait than `throttle` lets pass", retry_after=after, counts_as_attempt=False)
