"""One message a second for one webhook, and the waits that Slack asks for, kept for all who post to it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from bridge.plugin import RETRY_AFTER_CAP, Clock, Transient

INTERVAL = 1.0
"""Seconds between two messages; Slack allows about one a second for each webhook and channel."""

_SPREAD = 900.0
"""Seconds over which those who are sent away come back, one a second: never all of them at once."""
_LATE = 1.0
"""Seconds by which a line may fall behind before those in it are sent away."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class PostQueue:
    """Those who wait to post to one place, the first one first; all times are a clock's monotonic seconds."""

    waiting: list[object] = field(default_factory=list)
    free: float = 0.0
    """When the next message may be posted."""
    held: float = 0.0
    """Until when Slack asked for silence."""
    promised: float = 0.0
    """When the next one who is sent away may come back."""


_LINES: WeakValueDictionary[Hashable, PostQueue] = WeakValueDictionary()


def queue_for(place: Hashable, clock: Clock) -> PostQueue:
    """Return the line of all in this process who post to `place` by this clock; it lasts for as long as any of them."""
    return _LINES.setdefault((place, clock), PostQueue())


class ChannelRateLimiter:
    """Gives turns to post, in the order in which they were asked for; who is cancelled leaves the line.

    No post waits longer than `max_wait` seconds for its turn. If it would have to, also because Slack asks for a wait,
    `Transient` says how long, and the delivery waits in the store instead of in a task. That costs no attempt. Several
    may share a `line`, each with its own `max_wait`.
    """

    def __init__(self, clock: Clock, max_wait: float, line: PostQueue | None = None) -> None:
        self._clock = clock
        self._max_wait = max_wait
        self._line = line or PostQueue()

    async def turn(self, *, first: bool = False) -> None:
        """Return when one message may be posted; `first` goes before all who wait."""
        me = object()
        waiting = self._line.waiting
        waiting.insert(0 if first else len(waiting), me)
        try:
            await self._wait(me)
            self._line.free = self._clock.monotonic() + INTERVAL
        finally:
            waiting.remove(me)

    def hold(self, seconds: float) -> None:
        """Post nothing for so long, but never for more than a day."""
        self._line.held = max(self._line.held, self._clock.monotonic() + min(seconds, RETRY_AFTER_CAP))

    async def _wait(self, me: object) -> None:
        began, max_wait = self._clock.monotonic(), self._max_wait
        while (slot := self._slot(me)) > (now := self._clock.monotonic()):
            if slot - began > max_wait:
                raise self._sent_away(slot, now)
            max_wait = self._max_wait + _LATE
            await self._clock.sleep(min(slot - now, INTERVAL))  # those before may leave, and Slack may ask for a wait

    def _slot(self, me: object) -> float:
        """Return when it is the turn of one who stands in the line, as far as is known now."""
        return max(self._clock.monotonic(), self._line.free, self._line.held) + self._line.waiting.index(me) * INTERVAL

    def _sent_away(self, slot: float, now: float) -> Transient:
        line = self._line
        if not slot <= line.promised < slot + _SPREAD:
            line.promised = slot
        after, line.promised = line.promised - now, line.promised + INTERVAL
        return Transient(
            "Slack takes one message a second and more are waiting", retry_after=after, counts_as_attempt=False
        )
