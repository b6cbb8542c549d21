"""Whether this process should hold a lease now, as the share of the living processes says."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from bridge.domain.clock import Clock


class Turn:
    """One lease, as this process sees its share: ours to hold, or another process's."""

    def __init__(self, *, is_ours: bool = True) -> None:
        self.gained = asyncio.Event()
        """Set while this process should hold the lease."""
        self.lost = asyncio.Event()
        """Set while another process should hold it."""
        self.set(is_ours=is_ours)

    @property
    def is_ours(self) -> bool:
        """Whether this process should hold the lease."""
        return self.gained.is_set()

    def set(self, *, is_ours: bool) -> bool:
        """Take the lease from now on, or leave it to another process; return whether that is new."""
        is_new = is_ours != self.gained.is_set()
        (self.gained.set if is_ours else self.gained.clear)()
        (self.lost.clear if is_ours else self.lost.set)()
        return is_new


async def wait_for_any(events: Collection[asyncio.Event], clock: Clock, seconds: float | None = None) -> None:
    """Wait until one of `events` is set, or for `seconds`; the events stay as they are."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in events]
    if seconds is not None:
        waits.append(asyncio.ensure_future(clock.sleep(seconds)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
