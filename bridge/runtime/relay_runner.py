"""Relays every journal of the store to the broker, each under its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from bridge.coordination.leases import wait_for_stop
from bridge.domain.errors import Unavailable
from bridge.domain.retry import RECONNECT, Backoff
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.protocols.deliveries import RELAY_SINK
from bridge.protocols.ledger import Lease
from bridge.relay.dead_letters import RelayDeadLetters
from bridge.relay.recent_entries import RecentEntries
from bridge.relay.relay import Relay, RelayResult
from bridge.runtime.parts import ServiceParts
from bridge.runtime.process import Process

log = structlog.get_logger()

_NEW_JOURNALS_EVERY_SECONDS = 5.0
_READ_EVERY_SECONDS = {True: 5.0, False: 0.25}
"""Between two reads of a journal; longer if this process writes it, because its own commits wake the relay at once."""
_FIRST_WAIT_SECONDS = 0.5
_ROUTING_EVERY_SECONDS = 5.0
_REDRIVE_EVERY_SECONDS = 5.0
"""Between two looks for dead letters of the relay that an operator redrove."""


class RelayRunner:
    """The relaying part of a process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._clock = process.clock
        self._unroutable: dict[str, float] = {}
        """For each journal with unroutable events: when that was noted, in monotonic seconds."""

    @property
    def _parts(self) -> ServiceParts:
        return self._process.parts

    async def run(self) -> None:
        """Relay every source that has a journal, also a source that left the configuration with events unpublished."""
        supervisor = self._process.supervisor(self._process.stop_relaying)
        supervisor.start(f"relay/{RELAY_SINK}", self._redrive)
        try:
            while not self._process.stop_relaying.is_set():
                for name in await self._journals():
                    if f"relay/{name}" not in supervisor.names:
                        supervisor.start(f"relay/{name}", self._relay(name))
                stop, reloaded = self._process.stop_relaying, self._process.reloaded
                await wait_for_stop(stop, self._clock, _NEW_JOURNALS_EVERY_SECONDS, reloaded)
            await supervisor.join()
        finally:
            await supervisor.close()

    async def _journals(self) -> set[str]:
        configured = set(self._parts.sources)
        try:
            return configured.union(await self._parts.store.sources())
        except Unavailable:
            return configured

    def _relay(self, name: str) -> Callable[[], Awaitable[None]]:
        async def work(lease: Lease, leave: asyncio.Event) -> None:
            # Kept only while this process relays: otherwise nobody would take anything out.
            recent = self._process.recent[name] = RecentEntries(name)
            try:
                relay = Relay(self._parts.store, self._parts.broker, self._clock, recent=recent)
                await self._recall_routing(name)
                await self._drain_until_stop(name, lease, relay, leave)
            finally:
                del self._process.recent[name]
                self._process.health.set(f"relay/{name}", None)

        async def run() -> None:
            turn = self._process.shares.journal(name)
            await self._process.leases.run(f"relay/{name}", work, self._process.stop_relaying, turn=turn)

        return run

    async def _drain_until_stop(self, name: str, lease: Lease, relay: Relay, stop: asyncio.Event) -> None:
        backoff = Backoff(self._clock.random, base=_FIRST_WAIT_SECONDS, cap=RECONNECT)
        wake = self._process.committed[name]
        while True:
            # Once more after the signal to stop: what was committed last is published before the process ends.
            last = stop.is_set()
            started = self._clock.monotonic()
            try:
                result = await relay.drain(lease, name)
                await self._note_routing(name, result)
            except Unavailable as error:
                wait = backoff.on_failure()
                self._process.health.set(f"relay/{name}", str(error))
                log.warning(
                    "relay.waits", source=name, reason=str(error), again_in=round(wait, 1),
                    consequence="events wait in the journal",
                )  # fmt: skip
            else:
                backoff.on_success()
                wait = _READ_EVERY_SECONDS[self._hears_commits(name)]
                self._process.health.set(f"relay/{name}", None)
                self._count(name, result, self._clock.monotonic() - started)
            if last:
                return
            await wait_for_stop(stop, self._clock, wait, None if backoff.failures else wake)

    def _hears_commits(self, name: str) -> bool:
        """Return whether this process writes the journal, so that its own commits wake the relay at once."""
        polls = "poll" in self._process.roles
        return name in self._process.polling if name in self._parts.sources else polls

    async def _redrive(self) -> None:
        """Publish the relay's dead letters that an operator redrove."""
        dead_letters = RelayDeadLetters(self._parts.store, self._parts.broker, self._clock)
        backoff = Backoff(self._clock.random, base=_FIRST_WAIT_SECONDS, cap=RECONNECT)
        wait = 0.0
        while not await wait_for_stop(self._process.stop_relaying, self._clock, wait):
            try:
                await dead_letters.publish_due()
            except Unavailable as error:
                wait = backoff.on_failure()
                log.info("relay.redrive_waits", reason=str(error), again_in=round(wait, 1))
            else:
                backoff.on_success()
                wait = _REDRIVE_EVERY_SECONDS

    async def _recall_routing(self, name: str) -> None:
        """Recall whether the process before this one noted unroutable events."""
        with suppress(Unavailable):
            note = (await self._parts.store.statuses(f"relay/{name}")).get(f"relay/{name}", {})
            if note.get("unroutable_at", "") > note.get("routed_at", ""):
                self._unroutable[name] = float("-inf")

    async def _note_routing(self, name: str, result: RelayResult) -> None:
        """Note when a queue last wanted an event of a journal, and when none did; nothing as long as all go well."""
        now, noted = self._clock.monotonic(), self._unroutable.get(name)
        note = {}
        if result.unroutable and (noted is None or now - noted >= _ROUTING_EVERY_SECONDS):
            self._unroutable[name] = now
            note["unroutable_at"] = rfc3339(truncate_to_millis(self._clock.now()))
        if result.published > result.unroutable and (note or noted is not None):
            note["routed_at"] = rfc3339(truncate_to_millis(self._clock.now()))
            if not result.unroutable:
                del self._unroutable[name]
        if note:
            await self._parts.store.set_status(f"relay/{name}", note)

    def _count(self, name: str, result: RelayResult, seconds: float) -> None:
        if result.published:
            metrics = self._process.metrics
            metrics.confirmed.labels(name).inc(result.published)
            metrics.unroutable.labels(name).inc(result.unroutable)
            metrics.confirm_seconds.labels(name).observe(seconds)
            log.debug("relay.published", source=name, events=result.published, unroutable=result.unroutable)
