"""One message a second for one webhook, and the waits that Slack asks for, kept for all who post to it."""

from __future__ import annotations

from bridge.clock import Clock
from bridge.errors import Transient
from bridge.retry import RETRY_AFTER_CAP

INTERVAL = 1.0
"""Seconds between two messages; Slack allows about one a second for each webhook and channel."""

_SPREAD = 900.0
"""Seconds over which those who are sent away come back, one a second: never all of them at once."""
_LATE = 1.0
"""Seconds by which a line may fall behind before those in it are sent away."""


class Pace:
    """Gives turns to post, in the order in which they were asked for; who is cancelled leaves the line.

    Nobody waits longer than `patience` seconds for a turn: who would have to, also because Slack asked for a wait
    meanwhile, is sent away with `Transient` and the wait, and the delivery is kept elsewhere than in a waiting task.
    No try is spent by that.
    """

    def __init__(self, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._line: list[object] = []
        self._free = 0.0
        self._held = 0.0
        self._promised = 0.0
        """When the next one who is sent away may come back."""

    async def turn(self, *, first: bool = False) -> None:
        """Return when one message may be posted; `first` goes before all who wait."""
        me = object()
        self._line.insert(0 if first else len(self._line), me)
        try:
            await self._wait(me)
            self._free = self._clock.monotonic() + INTERVAL
        finally:
            self._line.remove(me)

    def hold(self, seconds: float) -> None:
        """Post nothing for so long, whoever asks, but never for more than a day."""
        self._held = max(self._held, self._clock.monotonic() + min(seconds, RETRY_AFTER_CAP))

    async def _wait(self, me: object) -> None:
        began, patience = self._clock.monotonic(), self._patience
        while (slot := self._slot(me)) > (now := self._clock.monotonic()):
            if slot - began > patience:
                raise self._sent_away(slot, now)
            patience = self._patience + _LATE
            await self._clock.sleep(min(slot - now, INTERVAL))  # those before may leave, and Slack may ask for a wait

    def _slot(self, me: object) -> float:
        """Return when it is the turn of one who stands in the line, as far as is known now."""
        return max(self._clock.monotonic(), self._free, self._held) + self._line.index(me) * INTERVAL

    def _sent_away(self, slot: float, now: float) -> Transient:
        if not slot <= self._promised < slot + _SPREAD:
            self._promised = slot
        after, self._promised = self._promised - now, self._promised + INTERVAL
        return Transient("Slack takes one message a second and more are waiting", retry_after=after, spends=False)
