"""Says every few seconds that this process runs, and hears by that what operators order."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from bridge import __version__
from bridge.coordination.leases import wait_for_stop
from bridge.domain.errors import Unavailable
from bridge.protocols.roster import Member, OpenCircuit
from bridge.runtime.process import Process

log = structlog.get_logger()

_MAX_BEAT_SECONDS = 3.0
_MAX_TTL_SECONDS = 10.0
_LAST_WORD_SECONDS = 1.0
"""Seconds that the store may need at the end: a process that is told to stop has little time."""
_MAX_PROBLEMS = 20
"""Problems of one process that others are shown."""


class Attendance:
    """The entry of one process in the roster; each announcement is answered with the orders for its parts."""

    def __init__(self, process: Process, circuits: Callable[[], Mapping[str, OpenCircuit]]) -> None:
        """Prepare; `circuits` returns the sinks of this process whose circuit is open."""
        self._process = process
        self._store = process.parts.store
        self._clock = process.clock
        self._circuits = circuits
        self._since = process.clock.epoch()
        self._is_announced = False

    @property
    def seconds(self) -> float:
        """Seconds between two announcements."""
        return min(_MAX_BEAT_SECONDS, self._process.parts.limits.lease / 5)

    async def begin(self) -> None:
        """Announce the process, and follow the orders, before any part works; raises `Unavailable`."""
        await self._announce()

    async def run(self) -> None:
        """Announce the process again and again until it has ended."""
        process = self._process
        while not await wait_for_stop(process.ended, self._clock, self.seconds, process.gates.has_started):
            try:
                await self._announce()
            except Unavailable as error:
                process.health.set("roster", str(error))
                log.debug("roster.waits", reason=str(error), consequence="the orders stay as they were")
            else:
                process.health.set("roster", None)

    async def end(self) -> None:
        """Leave, so that nobody takes the end of the process for a loss."""
        if self._is_announced:
            with suppress(Unavailable, TimeoutError):  # then it is shown as gone
                async with asyncio.timeout(_LAST_WORD_SECONDS):
                    await self._store.leave(self._process.owner)

    async def follow_orders(self) -> None:
        """Follow the orders as they are now, without an announcement; raises `Unavailable`."""
        self._process.gates.apply(await self._store.orders())

    async def _announce(self) -> None:
        gates = self._process.gates
        started = tuple(gates.started)
        ttl = min(_MAX_TTL_SECONDS, self._process.parts.limits.lease)
        orders = await self._store.announce(self._member(), ttl, started)
        self._is_announced = True
        del gates.started[: len(started)]
        gates.apply(orders)

    def _member(self) -> Member:
        process = self._process
        return Member(
            owner=process.owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            roles=tuple(sorted(process.roles)),
            version=__version__,
            generation=process.parts.generation,
            since=self._since,
            problems=dict(list(process.health.problems.items())[:_MAX_PROBLEMS]),
            circuits=self._circuits(),
            reload_problem=process.reload.problem or "",
            reload_problem_since=process.reload.at,
        )
