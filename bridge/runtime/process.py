"""What the runners of one process share: its parts, its metrics, its wake-ups, and the signals to stop."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import structlog

from bridge.coordination.leases import LeaseRunner, new_owner, wait_for_stop
from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError
from bridge.domain.retry import Backoff
from bridge.ingest.poller import describe_unexpected
from bridge.observability.metrics import Metrics
from bridge.relay.recent_entries import RecentEntries
from bridge.runtime.parts import ServiceParts
from bridge.web.health_server import Health

log = structlog.get_logger()

_STABLE_SECONDS = 60.0
"""A part that worked for so long before it failed starts its backoff anew."""
_RESTART_CAP_SECONDS = 60.0


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
    committed: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """For each journal: set when this process has written to it."""
    recent: dict[str, RecentEntries] = field(default_factory=dict)
    """For each journal that this process relays: the entries that it has written and not yet relayed."""

    def __post_init__(self) -> None:
        self.leases = LeaseRunner(self.parts.store, self.clock, self.owner, self.parts.limits.lease)

    async def supervise(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` until it returns; after an error say so, wait, and start it again. No other part suffers."""
        backoff = Backoff(self.clock.random, cap=_RESTART_CAP_SECONDS)
        while True:
            started = self.clock.monotonic()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - one part's defect must not take the others down
                if self.clock.monotonic() - started > _STABLE_SECONDS:
                    backoff.on_success()
                wait = backoff.on_failure()
                reason = str(error) if isinstance(error, BridgeError) else describe_unexpected(error)
                self.metrics.restarts.labels(name).inc()
                log.error("part.restarted", part=name, reason=reason, again_in=round(wait, 1))  # noqa: TRY400 - a traceback could quote data
                if await wait_for_stop(self.stop, self.clock, wait):
                    return
            else:
                return

    async def join(self, tasks: Collection[asyncio.Future[None]], deadline: float) -> None:
        """Wait until the tasks have ended, or until `deadline` on the monotonic clock, half a second at least."""
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.5, deadline - self.clock.monotonic()))
