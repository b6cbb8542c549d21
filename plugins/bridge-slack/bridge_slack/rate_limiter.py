"""One message a second for each channel, and the waits that Slack asks for, shared by all sinks that post to it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from bridge.plugin import RETRY_AFTER_CAP, Clock, Transient

INTERVAL_SECONDS = 1.0
"""Time between two messages; Slack allows about one a second for each webhook and channel."""

_SPREAD_SECONDS = 900.0
"""Time over which deferred posts come back, one a second: never all of them at once."""
_LATE_SECONDS = 1.0
"""How far a queue may fall behind before posts in it are deferred."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class PostQueue:
    """The posts that wait for one channel, in order; all times are a clock's monotonic seconds."""

    waiting: list[object] = field(default_factory=list)
    free: float = 0.0
    """When the next message may be posted."""
    paused_until: float = 0.0
    """Until when Slack asked for a pause."""
    promised: float = 0.0
    """When the next deferred post may come back."""


_QUEUES: WeakValueDictionary[Hashable, PostQueue] = WeakValueDictionary()


def queue_for(channel_key: Hashable, clock: Clock) -> PostQueue:
    """Return the queue that all sinks of this process with this key and clock share; it lives as long as they."""
    return _QUEUES.setdefault((channel_key, clock), PostQueue())


class ChannelRateLimiter:
    """Lets posts through one by one, in the order in which they asked; a cancelled post leaves the queue.

    No post waits longer than `max_wait` seconds. A post that would have to, also because Slack asks for a pause while
    it waits, fails with `Transient` and the remaining time: its delivery waits in the store and not in a task. That
    costs none of its attempts. Several limiters may share a `queue`, each with its own `max_wait`.
    """

    def __init__(self, clock: Clock, max_wait: float, queue: PostQueue | None = None) -> None:
        self._clock = clock
        self._max_wait = max_wait
        self._queue = queue or PostQueue()

    async def acquire(self, *, first: bool = False) -> None:
        """Return when one message may be posted; `first` goes before all that wait."""
        me = object()
        waiting = self._queue.waiting
        waiting.insert(0 if first else len(waiting), me)
        try:
            await self._wait(me)
            self._queue.free = self._clock.monotonic() + INTERVAL_SECONDS
        finally:
            waiting.remove(me)

    def pause(self, seconds: float) -> None:
        """Let no post through for so many seconds, at most for a day."""
        self._queue.paused_until = max(
            self._queue.paused_until, self._clock.monotonic() + min(seconds, RETRY_AFTER_CAP)
        )

    async def _wait(self, me: object) -> None:
        began, max_wait = self._clock.monotonic(), self._max_wait
        while (slot := self._slot(me)) > (now := self._clock.monotonic()):
            if slot - began > max_wait:
                raise self._defer(slot, now)
            max_wait = self._max_wait + _LATE_SECONDS
            # Look again soon: posts before this one may leave, and Slack may ask for a pause.
            await self._clock.sleep(min(slot - now, INTERVAL_SECONDS))

    def _slot(self, me: object) -> float:
        """Return when a post in the queue may be posted, as far as is known now."""
        return (
            max(self._clock.monotonic(), self._queue.free, self._queue.paused_until)
            + self._queue.waiting.index(me) * INTERVAL_SECONDS
        )

    def _defer(self, slot: float, now: float) -> Transient:
        queue = self._queue
        if not slot <= queue.promised < slot + _SPREAD_SECONDS:
            queue.promised = slot
        after, queue.promised = queue.promised - now, queue.promised + INTERVAL_SECONDS
        return Transient(
            "Slack takes one message a second and more are waiting", retry_after=after, counts_as_attempt=False
        )
