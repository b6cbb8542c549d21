"""One message a second for one webhook, and the waits that Slack asks for, kept for all who post to it."""

from __future__ import annotations

from bridge.clock import Clock
from bridge.errors import Transient
from bridge.retry import RETRY_AFTER_CAP

INTERVAL = 1.0
"""Seconds between two messages; Slack allows about one a second for each webhook and channel."""

_SPREAD = 900.0
"""Seconds over which those who are sent away come back, one a second: never all of them at once."""


class Pace:
    """Gives turns to post, in the order in which they were asked for.

    Nobody waits longer than `patience` seconds for a turn: beyond that, `turn` raises `Transient` with the wait, and
    the delivery is kept elsewhere than in a waiting task. No try is spent by that.
    """

    def __init__(self, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._free = 0.0
        self._held = 0.0
        self._promised = 0.0
        """When the next one who is sent away may come back."""

    async def turn(self) -> None:
        """Return when one message may be posted."""
        while True:
            now = self._clock.monotonic()
            slot = max(now, self._free, self._held)
            if slot - now > self._patience:
                raise self._sent_away(slot, now)
            self._free = slot + INTERVAL
            await self._clock.sleep(slot - now)
            if self._held <= slot:  # else Slack asked for a wait meanwhile: queue again behind it
                return

    def hold(self, seconds: float) -> None:
        """Post nothing for so long, whoever asks, but never for more than a day."""
        self._held = max(self._held, self._clock.monotonic() + min(seconds, RETRY_AFTER_CAP))

    def _sent_away(self, slot: float, now: float) -> Transient:
        if not slot <= self._promised < slot + _SPREAD:
            self._promised = slot
        after, self._promised = self._promised - now, self._promised + INTERVAL
        return Transient("Slack takes one message a second and more are waiting", retry_after=after, spends=False)
