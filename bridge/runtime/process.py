"""What the runners of one process share: its parts, its metrics, its wake-ups, and the signals to stop."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

import structlog

from bridge.coordination.gates import Gates
from bridge.coordination.leases import LeaseRunner, new_owner
from bridge.coordination.shares import Shares
from bridge.domain.clock import Clock
from bridge.observability.metrics import Metrics
from bridge.protocols.roster import Pause
from bridge.relay.recent_entries import RecentEntries
from bridge.runtime.overview import ROLES
from bridge.runtime.parts import ServiceParts
from bridge.runtime.sharing import announced_for, report_change
from bridge.runtime.supervisor import Supervisor
from bridge.web.health_server import Health

log = structlog.get_logger()


@dataclass
class Process:
    """One process of the bridge, as its runners see it."""

    parts: ServiceParts
    clock: Clock
    roles: frozenset[str]
    metrics: Metrics = field(default_factory=Metrics)
    health: Health = field(default_factory=Health)
    owner: str = field(default_factory=new_owner)
    stop_polling: asyncio.Event = field(default_factory=asyncio.Event)
    stop_relaying: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends whatever is neither a poll nor a relay."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the heartbeat and the health pages."""
    committed: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """For each journal: set when this process has written to it."""
    pushed: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """For each source: set when this process has stored a hint of a push."""
    recent: dict[str, RecentEntries] = field(default_factory=dict)
    """For each journal that this process relays: the entries that it has written and not yet relayed."""

    polling: set[str] = field(default_factory=set)
    """The sources that this process polls now."""

    def __post_init__(self) -> None:
        lease = self.parts.limits.lease
        self.shares = Shares(self.owner, lease, announced_for(lease), partial(report_change, self.metrics))
        self.leases = LeaseRunner(
            self.parts.store, self.clock, self.owner, self.parts.limits.lease, report=self.health.set,
            on_change=self._on_lease,
        )  # fmt: skip
        self.gates = Gates(self.owner, self.clock.epoch, self._on_pause)
        for kind, names in (("source", self.parts.sources), ("sink", self.parts.sinks)):
            for name in names:
                self.gates.of(f"{kind}/{name}")
                self.metrics.paused.labels(kind, name).set(0)
        for role in ROLES:
            self.metrics.role.labels(role).set(role in self.roles)
        self.metrics.journal_max_bytes.set(self.parts.limits.journal_bytes)

    def _on_lease(self, lease: str, is_held: bool) -> None:  # noqa: FBT001 - a callback has the arguments of its caller
        kind, _, name = lease.partition("/")
        self.metrics.lease_held.labels(kind, name).set(is_held)

    def _on_pause(self, part: str, pause: Pause | None) -> None:
        kind, _, name = part.partition("/")
        self.metrics.paused.labels(kind, name).set(pause is not None)
        self.health.set_pause(part, None if pause is None else str(pause))
        if pause is None:
            log.info("part.resumed", part=part, consequence="it works again, beginning with what waited")
            return
        rests = "the provider is not asked" if kind == "source" else "its events wait in the store"
        log.warning(
            "part.paused", part=part, by=pause.by, reason=pause.reason or None,
            consequence=f"{rests} until `bridgectl resume {part}`",
        )  # fmt: skip

    def supervisor(self, stop: asyncio.Event) -> Supervisor:
        """Return a supervisor of parts that `stop` ends."""
        return Supervisor(self.clock, self.metrics, self.health, stop)
