"""Whether an endpoint should be tried now: closed while it answers, open after a row of failures, then one probe."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bridge.domain.retry import backoff

FAILURE_THRESHOLD = 10
"""Failures in a row that open the circuit."""
MIN_FAILURE_SPAN_SECONDS = 5.0
"""Seconds: ten events that no endpoint accepts may come together, and prove nothing about the endpoint."""
_FIRST_WAIT_SECONDS = 2.0
_MAX_WAIT_SECONDS = 15.0
_MAX_REST_SECONDS = 60.0


@dataclass(slots=True)
class CircuitBreaker:
    """Counts failures in a row. All times are monotonic seconds, handed in.

    Closed, everything may be sent. After `opens_after` failures in `lasts` seconds or more, without a success between
    them, it opens: nothing goes out for a while that doubles with each opening. Then one delivery is let through: its
    success closes the circuit, its failure opens it anew. If an endpoint asks for a wait, the circuit waits, open or
    closed.
    """

    rng: random.Random
    opens_after: int = FAILURE_THRESHOLD
    lasts: float = MIN_FAILURE_SPAN_SECONDS
    failures: int = 0
    since: float = 0.0
    """When the first of them was noted."""
    opened: int = 0
    """How many times in a row it has opened; 0 while it is closed."""
    until: float = 0.0
    """Nothing goes out before."""
    probing: bool = field(default=False)

    @property
    def closed(self) -> bool:
        """Whether the endpoint is treated as healthy."""
        return self.opened == 0

    def allows(self, now: float) -> bool:
        """Whether all that comes now may be begun."""
        return self.closed and now >= self.until

    def capacity(self, now: float, wanted: int) -> int:
        """Return how many of `wanted` deliveries may be begun now."""
        if self.allows(now):
            return wanted
        return min(wanted, 1) if now >= self.until and not self.probing else 0

    def on_attempt(self) -> bool:
        """Note that a delivery is being sent; say whether it is the probe, as it is while open."""
        self.probing = not self.closed
        return self.probing

    def on_cancelled(self) -> None:
        """Note that a delivery ended without an answer worth counting."""
        self.probing = False

    def on_retry_after(self, now: float, seconds: float) -> bool:
        """Note that the endpoint asks for a wait: nothing is sent for so long, up to a minute; say whether this is new.

        While the circuit is open it is never less than the first wait: else one probe would follow the other.
        """
        self.probing = False
        first = now >= self.until
        self.until = max(
            self.until, now + min(max(seconds, 0.0 if self.closed else _FIRST_WAIT_SECONDS), _MAX_REST_SECONDS)
        )
        return first

    def on_success(self) -> bool:
        """Note an answer; say whether that closed the circuit."""
        closes = not self.closed
        self.failures = self.opened = 0
        self.probing = False
        if closes:
            self.until = 0.0
        return closes

    def on_failure(self, now: float) -> bool:
        """Note a failure; say whether that opened a circuit that was closed."""
        self.failures += 1
        if self.failures == 1:
            self.since = now
        if self.closed and (self.failures < self.opens_after or now - self.since < self.lasts):
            return False
        opens = self.closed
        if opens or self.probing:
            self.opened += 1
            wait = backoff(self.opened, self.rng, base=_FIRST_WAIT_SECONDS, cap=_MAX_WAIT_SECONDS)
            self.until = max(self.until, now + wait)
        self.probing = False
        return opens
