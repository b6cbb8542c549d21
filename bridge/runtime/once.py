"""`bridgectl run --once`: poll every source once, relay and deliver what came of it, and return."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

import structlog

from bridge.coordination.leases import hold_lease
from bridge.coordination.quota import SharedQuota, polling_lease, takeover_cooldown
from bridge.delivery.worker import DeliveryWorker
from bridge.domain.errors import BridgeError, Unavailable
from bridge.ingest.intake import PollResult
from bridge.ingest.poller import describe_unexpected
from bridge.protocols.ledger import Lease
from bridge.relay.dead_letters import RelayDeadLetters
from bridge.relay.relay import Relay
from bridge.runtime.expiry_totals import publish_totals
from bridge.runtime.process import Process
from bridge.runtime.sink_runner import INTERNAL_JOURNAL, SinkRunner
from bridge.runtime.source_runner import SourceRunner

log = structlog.get_logger()

_LOST_AFTER_SECONDS = 10.0
"""An event that an empty queue misses after so long was lost by the broker, and is offered from the journal."""
_MAX_DELIVERY_SECONDS = 120.0
_CHECK_EVERY_SECONDS = 0.05


@dataclass(slots=True)
class OnceReport:
    """What one run came to."""

    polls: dict[str, PollResult] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    paused: dict[str, str] = field(default_factory=dict)
    """The sources that were not polled, because an operator has paused them."""
    published: int = 0
    unroutable: int = 0
    deliveries: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many events were committed."""
        return sum(result.events for result in self.polls.values())


class OnceRunner:
    """One run over parts that are open. A source that fails is in the report, and the others go on."""

    def __init__(self, process: Process, sources: SourceRunner, sinks: SinkRunner) -> None:
        self._process = process
        self._parts = process.parts
        self._clock = process.clock
        self._sources = sources
        self._sinks = sinks
        self._report = OnceReport()

    async def run(self) -> OnceReport:
        """Poll, relay and deliver; raises `Unavailable` if the store or the broker cannot be reached."""
        if "poll" in self._process.roles:
            await asyncio.gather(*(self._poll_account(names) for names in self._sources.accounts()))
        if "relay" in self._process.roles:
            for name in await self._parts.store.sources():
                await self._relay(name)
            dead_letters = RelayDeadLetters(self._parts.store, self._parts.broker, self._clock)
            self._report.published += await dead_letters.publish_due()
        if "sink" in self._process.roles:
            await asyncio.gather(*(self._deliver(name) for name in self._parts.sinks))
        return self._report

    def _hold(self, name: str) -> AbstractAsyncContextManager[Lease]:
        ttl = self._parts.limits.lease
        return hold_lease(self._parts.store, self._clock, name, self._process.owner, ttl, max_wait=ttl + 1)

    async def _poll_account(self, names: Sequence[str]) -> None:
        """Poll the sources of one account, in this process all of them or none."""
        async with AsyncExitStack() as stack:
            try:
                if len(names) > 1:
                    lease = await stack.enter_async_context(self._hold(polling_lease(names)))
                    rate = self._sources.rate(names)
                    await self._clock.sleep(await takeover_cooldown(self._parts.store, lease, rate))
            except Unavailable:
                raise
            except BridgeError as error:
                for name in names:
                    self._fail(name, str(error))
                return
            quota = self._sources.quota(names)
            await asyncio.gather(*(self._poll(name, quota) for name in names))

    async def _poll(self, name: str, quota: SharedQuota) -> None:
        if pause := self._process.gates.of(f"source/{name}").pause:
            self._report.paused[name] = str(pause)
            return
        poller = self._sources.poller(name, quota)
        try:
            async with self._hold(f"source/{name}") as lease:
                self._report.polls[name] = await poller.once(lease)
        except Unavailable:
            raise
        except BridgeError as error:
            self._fail(name, str(error))
        except Exception as error:  # noqa: BLE001 - a source's defect is its own: the others go on
            self._fail(name, describe_unexpected(error))

    def _fail(self, name: str, reason: str) -> None:
        self._report.failures[name] = reason
        log.error("source.fails", source=name, reason=reason)

    async def _relay(self, name: str) -> None:
        relay = Relay(self._parts.store, self._parts.broker, self._clock)
        async with self._hold(f"relay/{name}") as lease:
            result = await relay.drain(lease, name)
            self._report.published += result.published
            self._report.unroutable += result.unroutable

    async def _deliver(self, name: str) -> None:
        worker = await self._sinks.open_worker(name)
        stop = asyncio.Event()
        working = asyncio.ensure_future(worker.run(stop, grace=self._parts.limits.drain))
        checking = asyncio.ensure_future(self._wait_until_settled(name, worker))
        try:
            await asyncio.wait([working, checking], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            checking.result()
        finally:
            stop.set()
            checking.cancel()
            await asyncio.gather(working, checking, return_exceptions=True)
        await self._sinks.note_activity(name)
        if self._parts.sinks[name].settings.expired == "summary":
            await publish_totals(self._process, name, INTERNAL_JOURNAL)
        counts = (await self._parts.store.counts(name)).values()
        self._report.deliveries[name] = {
            "taken": sum(count.delivered for count in counts),
            "waiting": sum(count.waiting for count in counts),
            "dead": sum(count.dead for count in counts),
        }

    async def _wait_until_settled(self, name: str, worker: DeliveryWorker) -> None:
        """Return when the sink's books have every confirmed event, and no delivery is due or in flight."""
        started, queue = self._clock.monotonic(), self._parts.broker.sink_queue(name)
        while True:
            elapsed = self._clock.monotonic() - started
            lost = elapsed > _LOST_AFTER_SECONDS and await self._parts.broker.depth(queue) == 0
            missing = await self._missing(name, math.inf if lost else 0)
            due = await self._parts.store.next_due(name)
            quiet = worker.on_hold or due is None or due > self._clock.epoch()
            if (not missing and quiet and not worker.busy) or elapsed > _MAX_DELIVERY_SECONDS:
                return
            await self._clock.sleep(_CHECK_EVERY_SECONDS)

    async def _missing(self, name: str, overdue: float) -> int:
        """Return how many confirmed events the sink's books miss, up to each journal's end."""
        store, settings = self._parts.store, self._parts.sinks[name].settings
        missing = 0
        for source in await store.sources():
            confirmed = (await store.journal(source)).confirmed
            missing += (await self._sinks.audit.account(name, settings, source, confirmed, overdue=overdue)).missing
        return missing
