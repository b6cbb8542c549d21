"""Says that it is time to stop: to all that works, or to a part of it."""

from __future__ import annotations

import asyncio
from weakref import WeakSet


class StopEvent(asyncio.Event):
    """An event that also sets those below it, which can be set alone. None of them is ever cleared."""

    def __init__(self) -> None:
        super().__init__()
        self._below: WeakSet[StopEvent] = WeakSet()

    def below(self) -> StopEvent:
        """Return an event that is set together with this one, or before it."""
        event = StopEvent()
        self._below.add(event)
        if self.is_set():
            event.set()
        return event

    def set(self) -> None:
        """Say that it is time to stop, here and below."""
        super().set()
        for event in list(self._below):
            event.set()
