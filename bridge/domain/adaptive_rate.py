"""How fast an endpoint is sent to: at the rate that it accepts, which its 429 teach."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

_DECREASE_RATIO = 0.9
"""What remains of the rate at which the endpoint asked for less."""
_DISCOVERY_GROWTH = math.log(2)
"""Growth of the rate per second until it was too high once: it doubles."""
_GROWTH = 0.003
"""Growth of the rate per second after that: slow, for each try that is too fast costs a wait."""
_DOUBLED_AFTER_SECONDS = 30.0
"""After each such time without a 429, growth is twice as fast: the endpoint may allow more than it did."""
_MAX_DOUBLINGS_COUNT = 6
_MIN_RATE = 1.0
"""Requests a second, at the least."""
_WINDOW_SECONDS = 1.0
_MIN_SAMPLE_SECONDS = 0.2
_SLACK_SECONDS = 0.005
"""How late a request may be without making the next one later: clocks of an event loop are no better."""


@dataclass(slots=True)
class AdaptiveRate:
    """Says when the next request may be begun. All times are monotonic seconds, handed in.

    Before the first 429, at once. A 429 sets the rate to a little less than what the endpoint
    accepted in the second before. From there the rate grows, quickly until it was too high again, then slowly. So an
    endpoint's limit is found in a few seconds, and asked for a little more only now and then.
    """

    rate: float = math.inf
    """What the endpoint is thought to accept, in requests a second."""
    _next: float = -math.inf
    _discovering: bool = True
    _is_limiting: bool = False
    """Whether a request had to wait since the rate grew."""
    _grown_at: float = 0.0
    _throttled_at: float = -math.inf
    _asks_until: float = -math.inf
    """Until when further 429 belong to the same excess."""
    _active_since: float = -math.inf
    _accepted: deque[float] = field(default_factory=deque)
    """When the requests of the last second were accepted."""

    @property
    def is_free(self) -> bool:
        """Whether nothing limits the rate."""
        return self.rate == math.inf

    def delay(self, now: float) -> float:
        """Return in how many seconds the next request may be begun."""
        if now >= self._next:
            return 0.0
        self._is_limiting = True
        return self._next - now

    def take(self, now: float) -> None:
        """Note that a request is begun."""
        if self.is_free:
            return
        self._grow(now)
        interval = 1.0 / self.rate
        self._next = max(self._next, now - max(interval, _SLACK_SECONDS)) + interval

    def on_accepted(self, now: float) -> None:
        """Note that the endpoint accepted a request."""
        accepted = self._accepted
        accepted.append(now)
        while accepted[0] < now - _WINDOW_SECONDS:
            accepted.popleft()

    def on_throttled(self, now: float, wait: float) -> bool:
        """Note a 429 after which nothing is sent for `wait` seconds; say whether it lowers the rate."""
        if now < self._asks_until:
            return False
        accepted = self._accepted_rate(now)
        self._discovering = self.is_free
        self.rate = max(_MIN_RATE, _DECREASE_RATIO * min(self.rate, accepted))
        self._throttled_at = now
        self._asks_until = self._active_since = self._grown_at = now + wait
        self._accepted.clear()
        return True

    def _accepted_rate(self, now: float) -> float:
        recent = sum(moment > now - _WINDOW_SECONDS for moment in self._accepted)
        if self.is_free:  # what came in a burst says nothing of the rate
            return recent / _WINDOW_SECONDS
        seconds = min(_WINDOW_SECONDS, max(now - self._active_since, _MIN_SAMPLE_SECONDS))
        return recent / seconds

    def _grow(self, now: float) -> None:
        passed = min(max(0.0, now - self._grown_at), _WINDOW_SECONDS)
        self._grown_at = max(self._grown_at, now)
        if not self._is_limiting:
            return
        self._is_limiting = False
        doublings = min(int((now - self._throttled_at) / _DOUBLED_AFTER_SECONDS), _MAX_DOUBLINGS_COUNT)
        growth = _DISCOVERY_GROWTH if self._discovering else _GROWTH * 2**doublings
        self.rate *= math.exp(growth * passed)
