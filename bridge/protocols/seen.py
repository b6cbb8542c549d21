"""What a subscriber remembers of the events that it has handled, so that none is handled twice."""

from __future__ import annotations

from typing import Protocol


class SeenEvents(Protocol):
    """Which ids a queue's subscribers have finished, and how often each of the others was tried.

    Every method raises `Unavailable` if the memory cannot be reached. A call that failed may be repeated.
    """

    async def begin(self, event_id: str, finished: str | None = None) -> int:
        """Note that `finished` is done, then count a try of `event_id`, both in one step.

        Returns the number of the try, from 1 on; 0 if the event is finished already, and then nothing is counted.
        """
        ...

    async def finish(self, event_id: str) -> None:
        """Note that an event is done: its tries are forgotten, its id is kept for the window."""
        ...

    async def forget_try(self, event_id: str) -> None:
        """Take back one try of an event that was stopped for no fault of its own."""
        ...

    async def close(self) -> None:
        """Give back files and connections."""
        ...
