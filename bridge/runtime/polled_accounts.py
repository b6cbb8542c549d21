"""The sources that one process polls together, because they share an account."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bridge.concurrency.stop_event import StopEvent
from bridge.coordination.quota import SharedQuota
from bridge.coordination.turns import Turn
from bridge.ingest.poller import Poller
from bridge.runtime.parts import ConfiguredSource
from bridge.runtime.supervisor import Supervisor


@dataclass(slots=True)
class PolledAccount:
    """The sources of one account: under one lease, with one budget, each stopped alone or together with the others."""

    lease: str
    sources: dict[str, ConfiguredSource]
    quota: SharedQuota
    stop: StopEvent
    turn: Turn
    """Whether this process should poll them."""
    going_on: set[str] = field(default_factory=set)
    """The sources whose pollers go on where they stood under another lease."""
    supervisor: Supervisor | None = None
    """Runs the polls of several sources while their lease is held."""
    first_request_at: float = -math.inf
    """From when on several sources may be asked for under their lease, in monotonic seconds."""
    goes_on_at: float = -math.inf
    """The same for those whose pollers go on."""
    _leave: StopEvent = field(default_factory=StopEvent)
    _stops: dict[str, StopEvent] = field(default_factory=dict)
    _pollers: dict[str, Poller] = field(default_factory=dict)
    _former: list[Poller] = field(default_factory=list)
    """Those that others have replaced, whose requests still count."""

    @property
    def is_quiet(self) -> bool:
        """Whether no request for these sources counts any more in the account's budget."""
        return all(poller.is_quiet for poller in (*self._pollers.values(), *self._former))

    def note(self, name: str, poller: Poller) -> None:
        """Note which poller asks for a source from now on."""
        replaced = self._pollers.get(name)
        if replaced is not None and replaced is not poller:
            self._former = [former for former in (*self._former, replaced) if not former.is_quiet]
        self._pollers[name] = poller

    def enter(self, supervisor: Supervisor, stop: StopEvent, poll: Poll) -> None:
        """Start polling all sources: their lease is held now, until `stop` is set."""
        self.supervisor, self._leave = supervisor, stop
        for name in self.sources:
            self.begin(name, poll)

    def begin(self, name: str, poll: Poll) -> None:
        """Start polling one of several sources, if their lease is held; otherwise it starts with the lease."""
        if self.supervisor is not None and f"source/{name}" not in self.supervisor.names:
            stop = self._stops[name] = self._leave.below()
            self.supervisor.start(f"source/{name}", poll(name, self, stop), stop)

    async def end(self, name: str, seconds: float) -> None:
        """Stop polling one of several sources; a poll may take `seconds` to end."""
        if self.supervisor is not None and name in self._stops:
            self._stops.pop(name).set()
            await self.supervisor.end(f"source/{name}", seconds)


Poll = Callable[[str, PolledAccount, StopEvent], Callable[[], Awaitable[None]]]
