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
from bridge.runtime.sharing import announced_for

log = structlog.get_logger()

_MAX_BEAT_SECONDS = 3.0
_MAX_SHARED_BEAT_SECONDS = 1.0
"""Seconds between two announcements while other processes share the accounts: who leaves is followed as soon."""
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
        self._announcing = asyncio.Lock()
        self._steady_since = self._tried_at = process.clock.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds between two announcements."""
        most = _MAX_SHARED_BEAT_SECONDS if self._process.shares.is_shared else _MAX_BEAT_SECONDS
        return min(most, self._process.parts.limits.lease / 5)

    def wake(self) -> None:
        """Announce the process at once."""
        self._process.gates.has_started.set()

    async def begin(self) -> None:
        """Announce the process, and follow the orders, before any new part works; raises `Unavailable`."""
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
        async with self._announcing:
            await self._announce_once()

    async def _announce_once(self) -> None:
        gates = self._process.gates
        started = tuple(gates.started)
        ttl, now = announced_for(self._process.parts.limits.lease), self._clock.monotonic()
        if now - self._tried_at > ttl:  # it stood still: to the others it was gone
            self._steady_since = now
        try:
            answer = await self._store.announce(self._member(), ttl, started)
        finally:
            self._tried_at = self._clock.monotonic()
        self._is_announced = True
        del gates.started[: len(started)]
        gates.apply(answer.orders)
        if not self._process.stop_polling.is_set():  # a process that ends relays what it has committed: its turns stay
            self._process.shares.observe(answer.presences, self._clock.monotonic())
        metrics = self._process.metrics
        metrics.accounts.labels("share").set(len(self._process.shares.share))
        metrics.accounts.labels("all").set(len(self._process.shares.accounts))

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
            steady=round(self._clock.monotonic() - self._steady_since, 1),
            accounts=process.shares.accounts,
            share=process.shares.share,
            share_reason=process.shares.reason,
            is_leaving=process.stop_polling.is_set(),
            reload_problem=process.reload.problem or "",
            reload_problem_since=process.reload.at,
        )
