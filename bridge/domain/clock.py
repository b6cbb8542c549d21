"""Time, waiting and randomness as values that are passed down, so that no test patches them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """What time it is, how to wait, and a source of chance.

    `now` is the wall clock in UTC and may jump; `monotonic` counts seconds and never goes back: deadlines use it.
    """

    now: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: random.Random = field(default_factory=random.Random)

    def epoch(self) -> float:
        """Return the wall clock as seconds since 1970."""
        return self.now().timestamp()
