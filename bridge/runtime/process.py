"""What the runners of one process share: its parts, its metrics, its wake-ups, and the signals to stop."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from bridge.concurrency.stop_event import StopEvent
from bridge.coordination.gates import Gates
from bridge.coordination.leases import LeaseRunner, new_owner
from bridge.coordination.shares import Shares
from bridge.domain.clock import Clock
from bridge.ingest.poller import describe_unexpected
from bridge.observability.metrics import Metrics
from bridge.protocols.roster import Orders, Pause
from bridge.relay.recent_entries import RecentEntries
from bridge.runtime.overview import ROLES
from bridge.runtime.parts import ServiceParts
from bridge.runtime.sharing import announced_for, report_change
from bridge.runtime.supervisor import Supervisor
from bridge.web.health_server import Health

log = structlog.get_logger()


@dataclass(slots=True)
class ReloadState:
    """Whether the configuration file was good when it was read last."""

    problem: str | None = None
    """Why the file is not in effect."""
    at: float = 0.0
    """Since when it is not, in seconds since 1970."""


@dataclass
class Process:
    """One process of the bridge, as its runners see it."""

    parts: ServiceParts
    clock: Clock
    roles: frozenset[str]
    metrics: Metrics = field(default_factory=Metrics)
    health: Health = field(default_factory=Health)
    owner: str = field(default_factory=new_owner)
    stop_polling: StopEvent = field(default_factory=StopEvent)
    stop_relaying: asyncio.Event = field(default_factory=asyncio.Event)
    stop: StopEvent = field(default_factory=StopEvent)
    """Ends whatever is neither a poll nor a relay."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the heartbeat and the health pages."""
    reloaded: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when another configuration has come into effect, and `parts` are new."""
    reload: ReloadState = field(default_factory=ReloadState)
    leaving: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    """What has left the configuration and is not closed yet."""
    committed: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """For each journal: set when this process has written to it."""
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
        for role in ROLES:
            self.metrics.role.labels(role).set(role in self.roles)
        self._show_parts(self.parts)

    def _on_lease(self, lease: str, is_held: bool) -> None:  # noqa: FBT001 - a callback has the arguments of its caller
        kind, _, name = lease.partition("/")
        self.metrics.lease_held.labels(kind, name).set(is_held)

    def exchange_parts(self, parts: ServiceParts, orders: Orders) -> None:
        """Have the parts of another configuration from now on; they follow the orders from the first moment."""
        gone = {*self.parts.names} - {*parts.names}
        self.leaving |= self.parts.closers_without(parts)
        self.parts = parts
        for part in gone:
            self.gates.forget(part)
            self.health.set_pause(part, None)
        self._show_parts(parts)
        self.gates.apply(orders)
        self.reloaded.set()

    def note_reload(self, problem: str | None) -> None:
        """Show everywhere that the file is in effect (None), or why it is not; the process is ready all the same."""
        now = self.clock.epoch()
        self.reload = ReloadState(problem, 0.0 if problem is None else self.reload.at or now)
        self.metrics.reload_successful.set(problem is None)
        if problem is None:
            self.metrics.reloaded_at.set(now)
            self.health.reload = None
        else:
            self.health.reload = {"problem": problem, "generation": self.parts.generation}

    async def close(self, name: str, close: Callable[[], Awaitable[None]]) -> None:
        """Close a part; a failure is only logged, for the others still have to be closed."""
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing more is done with the part
            log.warning("part.cannot_be_closed", part=name, error=describe_unexpected(error))
        self.leaving.pop(name, None)

    def forget(self, part: str) -> None:
        """Show a part no more that has left the configuration and has ended."""
        kind, _, name = part.partition("/")
        self.polling -= {name} if kind == "source" else set()
        self.health.forget(part)
        self.metrics.forget(kind, name)

    def _show_parts(self, parts: ServiceParts) -> None:
        for part in parts.names:
            gate = self.gates.of(part)
            self.metrics.paused.labels(*part.split("/", 1)).set(gate.pause is not None)
        self.metrics.set_generation(parts.generation)
        self.metrics.journal_max_bytes.set(parts.limits.journal_bytes)

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
