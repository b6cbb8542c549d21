"""Starts delivering to all sinks, and of another configuration starts and ends only what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bridge.concurrency.stop_event import StopEvent
from bridge.runtime.parts import ConfiguredSink
from bridge.runtime.process import Process
from bridge.runtime.sink_runner import SinkRunner
from bridge.runtime.supervisor import Supervisor

_LAST_NOTE_SECONDS = 5.0
"""Seconds beyond those of its deliveries in which a sink that left should have ended."""


class SinkChanges:
    """The sinks that a process delivers to. A changed sink ends before its successor starts; its events wait."""

    def __init__(self, process: Process, sinks: SinkRunner) -> None:
        self._process = process
        self._sinks = sinks
        self._supervisor: Supervisor | None = None
        self._stops: dict[str, StopEvent] = {}

    def start(self, supervisor: Supervisor) -> None:
        """Start delivering and auditing, a part of each for each sink."""
        self._supervisor = supervisor
        for name in self._process.parts.sinks:
            self._begin(name)

    async def follow(self, former: Mapping[str, ConfiguredSink]) -> None:
        """Deliver to the sinks of the process, which have replaced `former`; return when these have ended."""
        now = self._process.parts.sinks
        differing = [name for name in {**former, **now} if former.get(name) is not now.get(name)]
        await asyncio.gather(*(self._replace(name, former.get(name)) for name in differing))

    async def _replace(self, name: str, former: ConfiguredSink | None) -> None:
        if former is not None:
            await self._end(name)
            await self._process.close(f"sink {name}", former.sink.close)
        if name in self._process.parts.sinks:
            self._begin(name)
        else:
            self._sinks.forget(name)
            self._process.forget(f"sink/{name}")

    def _begin(self, name: str) -> None:
        if self._supervisor is None or self._process.stop.is_set():
            return
        stop = self._stops[name] = self._process.stop.below()
        for part, work in self._sinks.parts_of(name, stop).items():
            self._supervisor.start(part, work, stop)

    async def _end(self, name: str) -> None:
        """Accept nothing new, and let what is being sent end: there is all the time that the end of a process has."""
        stop, grace = self._stops.pop(name, None), self._process.parts.limits.drain
        if stop is None or self._supervisor is None:
            return
        if worker := self._sinks.workers.get(name):
            worker.grace = grace
        stop.set()
        ends = (self._supervisor.end(part, grace + _LAST_NOTE_SECONDS) for part in (f"sink/{name}", f"audit/{name}"))
        await asyncio.gather(*ends)
