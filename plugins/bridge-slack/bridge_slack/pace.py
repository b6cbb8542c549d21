"""One message a second for one webhook, and the waits that Slack asks for, kept for all who post to it."""

from __future__ import annotations

from bridge.clock import Clock
from bridge.errors import Transient

INTERVAL = 1.0
"""Seconds between two messages; Slack allows about one a second for each webhook and channel."""


class Pace:
    """Gives turns to post, in the order in which they were asked for.

    Nobody waits longer than `patience` seconds for a turn: beyond that, `turn` raises `Transient` with the wait, and
    the delivery is kept elsewhere than in a waiting task.
    """

    def __init__(self, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._free = 0.0
        self._held = 0.0

    async def turn(self) -> None:
        """Return when one message may be posted."""
        while True:
            now = self._clock.monotonic()
            slot = max(now, self._free, self._held)
            if slot - now > self._patience:
                raise Transient("Slack takes one message a second and more are waiting", retry_after=slot - now)
            self._free = slot + INTERVAL
            await self._clock.sleep(slot - now)
            if self._held <= slot:  # else Slack asked for a wait meanwhile: queue again behind it
                return

    def hold(self, seconds: float) -> None:
        """Post nothing for so long, whoever asks."""
        self._held = max(self._held, self._clock.monotonic() + seconds)
