"""Has the dead letters of all sinks published: soon after this process made one, and now and then in any case."""

from __future__ import annotations

import structlog

from bridge.coordination.leases import wait_for_stop
from bridge.delivery.dead_letter_news import DeadLetterNews
from bridge.domain.errors import Unavailable
from bridge.protocols.deliveries import RELAY_SINK
from bridge.runtime.process import Process

log = structlog.get_logger()

_EVERY_SECONDS = 5.0
"""Seconds between two events about one sink."""
_ALL_EVERY_SECONDS = 60.0
"""Seconds between two looks at sinks of which this process has heard nothing: another one may have been killed."""


class DeadLetterRunner:
    """The part of a delivering process that publishes `DeliveryDead`."""

    def __init__(self, process: Process, journal: str) -> None:
        self._process = process
        self._journal = journal
        self._news = DeadLetterNews(process.parts.store, process.clock, journal)
        self._due: set[str] = set()

    def note(self, sink: str) -> None:
        """Note that this process has made a dead letter."""
        self._due.add(sink)

    async def run(self) -> None:
        """Tell of dead letters until the process stops."""
        names = [*self._process.parts.sinks, RELAY_SINK]
        clock = self._process.clock
        asked = clock.monotonic()
        while True:
            if clock.monotonic() - asked >= _ALL_EVERY_SECONDS:
                asked = clock.monotonic()
                self._due |= set(names)
            try:
                await self._publish()
            except Unavailable as error:
                log.debug("dead_letters.wait_for_store", reason=str(error))
            if await wait_for_stop(self._process.stop, clock, _EVERY_SECONDS):
                return

    async def _publish(self) -> None:
        for name in sorted(self._due):
            if await self._news.publish(name):
                self._process.committed[self._journal].set()
            else:
                self._due.discard(name)
