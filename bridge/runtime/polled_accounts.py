"""The sources that one process polls together, because they share an account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bridge.concurrency.stop_event import StopEvent
from bridge.coordination.quota import SharedQuota
from bridge.runtime.parts import ConfiguredSource
from bridge.runtime.supervisor import Supervisor


@dataclass(slots=True)
class PolledAccount:
    """The sources of one account: under one lease, with one budget, each stopped alone or together with the others."""

    lease: str
    sources: dict[str, ConfiguredSource]
    quota: SharedQuota
    stop: StopEvent
    going_on: set[str] = field(default_factory=set)
    """The sources whose pollers go on where they stood under another lease."""
    supervisor: Supervisor | None = None
    """Runs the polls of several sources while their lease is held."""
    _stops: dict[str, StopEvent] = field(default_factory=dict)

    def enter(self, supervisor: Supervisor, poll: Poll) -> None:
        """Start polling all sources: their lease is held now."""
        self.supervisor = supervisor
        for name in self.sources:
            self.begin(name, poll)

    def begin(self, name: str, poll: Poll) -> None:
        """Start polling one of several sources, if their lease is held; otherwise it starts with the lease."""
        if self.supervisor is not None and f"source/{name}" not in self.supervisor.names:
            stop = self._stops[name] = self.stop.below()
            self.supervisor.start(f"source/{name}", poll(name, self, stop), stop)

    async def end(self, name: str, seconds: float) -> None:
        """Stop polling one of several sources; a poll may take `seconds` to end."""
        if self.supervisor is not None and name in self._stops:
            self._stops.pop(name).set()
            await self.supervisor.end(f"source/{name}", seconds)


Poll = Callable[[str, PolledAccount, StopEvent], Callable[[], Awaitable[None]]]
