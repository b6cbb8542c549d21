"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bridge.domain.clock import Clock

START = datetime(2026, 3, 1, tzinfo=UTC)
_EPSILON_SECONDS = 1e-6
"""By so much sums of the same seconds may differ."""


class EvenRandom(random.Random):
    """Chance without chance: every jitter is zero."""

    def random(self) -> float:
        return 0.5


@dataclass
class SteppedClock:
    """Seconds since its start, and who sleeps until when."""

    seconds: float = 0.0
    _sleeping: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        return Clock(
            now=lambda: START + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
            sleep=self.sleep,
            random=EvenRandom(),
        )

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.seconds + max(0.0, seconds), woken))
        self._wake()
        await woken

    def move_to(self, seconds: float) -> None:
        self.seconds = max(self.seconds, seconds)
        self._wake()

    def has_sleeper_until(self, seconds: float) -> bool:
        return any(abs(until - seconds) < _EPSILON_SECONDS for until, woken in self._sleeping if not woken.done())

    def _wake(self) -> None:
        for until, woken in self._sleeping:
            if until <= self.seconds + _EPSILON_SECONDS and not woken.done():
                woken.set_result(None)
        self._sleeping = [sleeper for sleeper in self._sleeping if not sleeper[1].done()]
