"""Ids of handled events in the memory of one process: gone when the process ends."""

from __future__ import annotations

from collections import OrderedDict

from bridge.domain.clock import Clock


class MemorySeen:
    """`SeenEvents` for one process: the last `keep_ids` ids, each for `keep_seconds` at most."""

    def __init__(self, *, keep_ids: int, keep_seconds: float, clock: Clock) -> None:
        self._keep_ids = keep_ids
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._finished: OrderedDict[str, float] = OrderedDict()
        self._tries: dict[str, int] = {}

    async def begin(self, event_id: str, finished: str | None = None) -> int:
        """Note that `finished` is done, then count a try of `event_id`."""
        if finished is not None:
            await self.finish(finished)
        since = self._finished.get(event_id)
        if since is not None and self._clock.monotonic() - since < self._keep_seconds:
            return 0
        tries = self._tries[event_id] = self._tries.get(event_id, 0) + 1
        return tries

    async def finish(self, event_id: str) -> None:
        """Note that an event is done."""
        self._tries.pop(event_id, None)
        now = self._finished[event_id] = self._clock.monotonic()
        self._finished.move_to_end(event_id)
        while self._finished:
            oldest, since = next(iter(self._finished.items()))
            if len(self._finished) <= self._keep_ids and now - since < self._keep_seconds:
                break
            del self._finished[oldest]

    async def forget_try(self, event_id: str) -> None:
        """Take back one try."""
        left = self._tries.pop(event_id, 1) - 1
        if left > 0:
            self._tries[event_id] = left

    async def close(self) -> None:
        """Do nothing: the process's end takes everything along."""
