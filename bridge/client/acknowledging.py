"""Acknowledges what is finished while the next event is handled: as many at once as have come together."""

from __future__ import annotations

import asyncio

from bridge.domain.errors import Unavailable
from bridge.protocols.broker import Inbox, Received


class Acknowledger:
    """Tells an inbox what is finished, one call at a time. An event whose call fails comes again."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._finished: list[Received] = []
        self._running: asyncio.Task[None] | None = None

    def add(self, received: Received) -> None:
        """Have a message acknowledged soon."""
        self._finished.append(received)
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._acknowledge())

    async def close(self) -> None:
        """Return when everything is acknowledged, or cannot be."""
        if self._running is not None:
            await self._running

    async def _acknowledge(self) -> None:
        while self._finished:
            finished, self._finished = self._finished, []
            try:
                await self._inbox.ack(finished)
            except Unavailable:  # the connection is gone: the broker sends them again, and their ids are known
                return
