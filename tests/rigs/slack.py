"""A Slack that answers what each test says, and the sink before it."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count

from bridge.domain.clock import Clock
from bridge.domain.event import Data, Event, Transition
from bridge.domain.events.govdelivery import RecipientData, RecipientFailed

AT = datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)


def made(cls: type[Event], data: Data, subject: str = "/messages/voice/10507/recipients/1", at: datetime = AT) -> Event:
    return cls.of(id="e" * 32, source="/govdelivery/city-voice", subject=subject, time=at, recordedtime=at, data=data)


def failed(number: int = 1, message: str = "/messages/voice/10507", **fields) -> Event:
    data = RecipientData(channel="voice", status="failed", previous="sending", transition=Transition.ADVANCE,
                         message=message, **{"detail": "busy", "phone": "…1000", **fields})  # fmt: skip
    event = made(RecipientFailed, data, f"{message}/recipients/{number}", AT + timedelta(seconds=number))
    return event.model_copy(update={"id": f"{number:032x}"})


class Time:
    """A clock that stands still until it is moved on, and lets all that became due be done in between."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.idle = asyncio.Event()
        self.idle.set()
        self._busy = 0
        self._due: list = []
        self._order = count()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (self.now + seconds, next(self._order), woken))
        await woken

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, sleep=self.sleep)

    @contextmanager
    def under_way(self):
        """Stand still for as long as something takes real time."""
        self._busy += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self.idle.set()

    async def settled(self) -> None:
        async with asyncio.timeout(60):
            for _ in range(30):
                await asyncio.sleep(0)
                await self.idle.wait()

    async def move(self, seconds: float) -> None:
        until = self.now + seconds
        await self.settled()
        while self._due and self._due[0][0] <= until:
            self.now = self._due[0][0]
            while self._due and self._due[0][0] == self.now:
                *_, woken = heapq.heappop(self._due)
                if not woken.done():
                    woken.set_result(None)
            await self.settled()
        self.now = until
